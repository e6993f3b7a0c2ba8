"""What each live metric counts as bad, in the windows of the candidate and of the stable version.

A metric whose bad requests lie above a quantile of the stable version's takes that quantile from earlier windows, so
that it is fixed before a window is counted.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from release_platform.domain.metrics import Direction
from release_platform.domain.sequential import Counts
from release_platform.domain.strategy import QUANTILE, LiveGateSpec, LiveMetric
from release_platform.domain.windows import EVERY_SLICE, LABEL, Route, Window, number_bucket

PREDICTION_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Where the distributions of predictions are compared."""

Arms = tuple[Window, Window]
"""The candidate's and the stable version's window of one minute."""


def tables_of(gate: LiveGateSpec, arms: Sequence[Arms], *, since: int) -> Counts:
    """Returns what a gate counts in each minute, shape (questions, windows, 4), or 2 for pairs, see `sequential`.

    Args:
        gate: The gate.
        arms: The candidate's and the stable version's window, for each minute of the candidate.
        since: The first minute of the comparison. Outcomes of earlier predictions of the candidate do not count, and
            of the stable version none that are older than the candidate's oldest: so both had equally long to come.
    """
    match gate.metric:
        case LiveMetric.ERRORS:
            rows = [(c.requests, sum(c.errors.values()), s.requests, sum(s.errors.values())) for c, s in arms]
            return np.array(rows, dtype=np.int64).reshape(1, -1, 4)
        case LiveMetric.DISAGREEMENT:
            differing = [sum(c.flips.get(EVERY_SLICE, {}).values()) for c, _ in arms]
            pairs = [c.pairs.get(EVERY_SLICE, 0) for c, _ in arms]
            return np.array(list(zip(pairs, differing, strict=True)), dtype=np.int64).reshape(1, -1, 2)
        case LiveMetric.LATENCY:
            usual = () if gate.limit is not None else (gate.quantile or QUANTILE,)
            return _above(gate, [(c.latency, s.latency) for c, s in arms], quantiles=usual)
        case LiveMetric.PREDICTIONS:
            above = _above(gate, [(c.predictions, s.predictions) for c, s in arms], quantiles=PREDICTION_QUANTILES)
            return np.concatenate([above, _opposite(above)])
        case LiveMetric.LABEL_QUALITY | LiveMetric.OUTCOME:
            name = LABEL if gate.outcome is None else gate.outcome
            ages = [c.key.minute - since for c, _ in arms]
            outcomes = [
                (c.outcomes_since(name, since), s.outcomes_since(name, s.key.minute - age))
                for (c, s), age in zip(arms, ages, strict=True)
            ]
            return _above(gate, outcomes, quantiles=() if gate.quantile is None else (gate.quantile,))


def _opposite(tables: Counts) -> Counts:
    """Returns the tables of what is not bad."""
    n_c, k_c, n_s, k_s = np.moveaxis(tables, -1, 0)
    return np.stack([n_c, n_c - k_c, n_s, n_s - k_s], axis=-1)


def _above(
    gate: LiveGateSpec, counted: Sequence[tuple[Mapping[int, int], Mapping[int, int]]], *, quantiles: Sequence[float]
) -> Counts:
    """Returns a table for each quantile of the stable arm's past, or without any for the gate's limit."""
    buckets = sorted({bucket for pair in counted for counts in pair for bucket in counts})
    if not buckets:
        return np.zeros((1, len(counted), 4), dtype=np.int64)
    candidate, stable = (
        np.array([[counts.get(b, 0) for b in buckets] for counts in arm]) for arm in zip(*counted, strict=True)
    )
    if not quantiles:
        return _beyond_limit(gate, np.array(buckets), candidate, stable)[None]
    past = np.cumsum(np.cumsum(stable, axis=0) - stable, axis=1)  # at or below each bucket, in earlier windows
    bad = np.stack([past / np.maximum(past[:, -1:], 1) >= q for q in quantiles])
    bad = np.roll(bad, 1, axis=-1)  # the bucket that reaches the quantile is the last good one
    bad[..., 0] = False
    known = past[:, -1] > 0
    rows = [known * candidate.sum(1), (bad * candidate).sum(-1), known * stable.sum(1), (bad * stable).sum(-1)]
    return np.stack(np.broadcast_arrays(*rows), axis=-1)


def _beyond_limit(gate: LiveGateSpec, buckets: Counts, candidate: Counts, stable: Counts) -> Counts:
    limit = number_bucket(gate.limit or 0.0)
    higher_is_bad = gate.metric is not LiveMetric.OUTCOME or gate.better is Direction.LOWER
    bad = buckets > limit if higher_is_bad else buckets < limit
    return np.stack([candidate.sum(1), candidate[:, bad].sum(1), stable.sum(1), stable[:, bad].sum(1)], axis=-1)


def is_measured(gate: LiveGateSpec, window: Window) -> bool:
    """Whether a window has what every request should bring; outcomes come when they come."""
    answered = window.requests - sum(window.errors.values())
    match gate.metric:
        case LiveMetric.LATENCY:
            return bool(window.latency) or not window.requests
        case LiveMetric.PREDICTIONS:
            return bool(window.predictions) or not answered
        case LiveMetric.DISAGREEMENT:
            return window.key.route is not Route.SHADOW or bool(window.pairs) or not answered
        case LiveMetric.ERRORS | LiveMetric.LABEL_QUALITY | LiveMetric.OUTCOME:
            return True
