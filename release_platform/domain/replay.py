"""A replay: recorded requests, answered by the Production version and by a candidate, row by row, side by side.

A report tells which rows each refuses and why, which answers change in which slices, and how long both take. Its digest
is over all of it but the times: the same rows and the same two versions give the same digest. The limits are applied
when the report is judged, so a change of them needs no second replay.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from math import ceil
from typing import Any

from release_platform.domain.flips import SliceFlips
from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.identity import digest_of
from release_platform.domain.json_form import exactly
from release_platform.domain.replay_spec import ReplaySpec
from release_platform.domain.windows import EVERY_SLICE

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
JUDGED_QUANTILE = "p95"
REFUSED, FLIPS, SLICE_FLIPS, LATENCY = "replay_refused", "replay_flips", "replay_slice_flips", "replay_latency"
"""The gates of a replay."""
_SHOWN = {
    REFUSED: "which rows it refuses",
    FLIPS: "which answers change in which slices",
    SLICE_FLIPS: "which answers change in which slices",
    LATENCY: "its times",
}
_LIMITS = {
    REFUSED: "max_refused_share",
    FLIPS: "max_flip_share",
    SLICE_FLIPS: "max_slice_flip_share",
    LATENCY: "max_latency_ratio",
}
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one of the two versions did.

    Attributes:
        version: Its number.
        digest: `D(v)` of the files that answered.
        refused: Rows that it did not answer, by what was wrong: `absent column: x`, `missing value: x`,
            `wrong value: x`, `failed: ErrorType`, `not finite`.
        latency_ms: Quantiles of a row's time over the rows that both answered, `p50`, `p95`, `p99`; empty for none.
    """

    version: str
    digest: str
    refused: Mapping[str, int]
    latency_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a replay showed.

    Attributes:
        model: The model.
        stable: The version in Production.
        candidate: The version that was held beside it.
        rows_digest: Digest of the rows, in the order in which they were asked.
        n_recorded: How many rows are recorded of the period.
        n_rows: How many of them were asked.
        n_answered: How many of these the Production version answers.
        n_refused: How many of those the candidate does not.
        flips: What changes, over all rows that both answer first, then by slice; empty where there is no such row.
        since: The beginning of the period, ISO 8601.
        at: When it was made, ISO 8601.
    """

    model: str
    stable: Side
    candidate: Side
    rows_digest: str
    n_recorded: int
    n_rows: int
    n_answered: int
    n_refused: int
    flips: tuple[SliceFlips, ...]
    since: str
    at: str

    def __post_init__(self) -> None:
        if not 0 <= self.n_refused <= self.n_answered <= self.n_rows <= self.n_recorded:
            raise ValueError("refused, answered, asked and recorded rows are each part of the next")

    @property
    def digest(self) -> str:
        """Digest of what the same rows and versions always show: all but times and latency."""
        still = replace(
            self,
            stable=replace(self.stable, latency_ms={}),
            candidate=replace(self.candidate, latency_ms={}),
            since="",
            at="",
        )
        return digest_of(_fields(still))

    @property
    def refused_share(self) -> float | None:
        """Share of the rows which Production answers that the candidate refuses; None without such a row."""
        return self.n_refused / self.n_answered if self.n_answered else None

    @property
    def flip_share(self) -> float | None:
        """Share of the rows that both answer whose answers differ; None without such a row."""
        return next((one.share for one in self.flips if one.slice == EVERY_SLICE), None)

    @property
    def latency_ratio(self) -> float | None:
        """The candidate's 95th percentile of a row's time by that of Production; None without a row to compare."""
        before, after = (side.latency_ms.get(JUDGED_QUANTILE) for side in (self.stable, self.candidate))
        return after / before if before and after is not None else None

    def to_json(self) -> dict[str, Any]:
        """Returns the report as a JSON value."""
        return {**_fields(self), "digest": self.digest}

    @staticmethod
    def from_json(value: object) -> "Replay":
        """Returns the report that `to_json` wrote.

        Raises:
            ValueError: It is none, or not what its digest is of.
        """
        of = dict(exactly(value, "replay", **_KINDS))
        digest = of.pop("digest")
        sides: dict[str, Any] = {name: Side(**exactly(of.pop(name), name, **_SIDE)) for name in ("stable", "candidate")}
        flips = tuple(_flips_from(one) for one in of.pop("flips"))
        found = Replay(**of, **sides, flips=flips)
        if found.digest != digest:
            raise ValueError(f"its digest is not {digest}")
        return found


def judge_replay(replay: Replay, limits: ReplaySpec) -> tuple[GateResult, ...]:
    """Returns what the four gates find; with too few rows each is `inconclusive`, and says what to do next."""
    few = ""
    if replay.n_answered < limits.minimum_rows:
        few = (
            f"version {replay.stable.version} answered {replay.n_answered:,} recorded row(s), "
            f"{limits.minimum_rows:,} are needed: let the servers record more (SERVING_SAMPLE_SHARE, and an API key of "
            f"scope admin: the last tick of `recordings_sensor` says what is missing), or look further back with "
            f"`{_command(replay)} --since {2 * _days(replay)}d`"
        )
    ratio = f"the candidate's {JUDGED_QUANTILE} by that of Production"
    return (
        _gate(REFUSED, replay.refused_share, limits.max_refused_share, "the share of rows that it refuses", few=few),
        _gate(FLIPS, replay.flip_share, limits.max_flip_share, "the share of answers that it changes", few=few),
        _slice_gate(replay, limits, few=few),
        _gate(LATENCY, replay.latency_ratio, limits.max_latency_ratio, ratio, few=few),
    )


def next_step(gate: GateResult, replay: Replay) -> str:
    """Returns what a person does next about a gate that failed; empty for any other, whose reason says it."""
    if gate.verdict is not Verdict.FAILED:
        return ""
    return (
        f"mend the model and run `release run {replay.model}`; or, if that is wanted, raise "
        f"policy.replay.{_LIMITS[gate.gate]} in its defs.yaml"
    )


def said_of(gates: Iterable[GateResult], replay: Replay) -> tuple[str, ...]:
    """Returns what gates found and what a person does next, where the rows, slices and times are not shown.

    What several of them found alike, as that there are too few rows, is said once.
    """
    found: dict[str, list[str]] = {}
    for gate in gates:
        after = next_step(gate, replay)
        shown = f": `{_command(replay)}` shows {_SHOWN[gate.gate]}; {after}" if after else ""
        found.setdefault(f"{gate.verdict}: {gate.reason}{shown}", []).append(gate.gate)
    return tuple(f"{', '.join(names)} {said}" for said, names in found.items())


def unmet_replay(
    replay: Replay | None, limits: ReplaySpec, *, model: str, version: str, digest: str, production: str | None
) -> tuple[str, ...]:
    """Returns what of a demanded replay is missing, in sentences.

    Args:
        replay: The last of the version; None for none.
        limits: What the model's policy demands.
        model: The model.
        version: The version that is to be promoted.
        digest: Its registered digest.
        production: What is in Production now; with nothing there, no request was recorded and nothing is demanded.
    """
    if production is None:
        return ()
    again = f"run `release replay {model} --version {version}`"
    if replay is None:
        return (f"it was not replayed over recorded requests: {again}",)
    if (replay.model, replay.candidate.version, replay.candidate.digest) != (model, version, digest):
        return (f"what was replayed over recorded requests are other files than the registered ones: {again}",)
    if replay.stable.version != production:
        return (
            f"it was replayed beside version {replay.stable.version}, but Production is version {production} now: "
            f"{again}",
        )
    return said_of((one for one in judge_replay(replay, limits) if not one.passed), replay)


def _command(replay: Replay) -> str:
    return f"release replay {replay.model} --version {replay.candidate.version}"


def _days(replay: Replay) -> int:
    """Returns how many days the replay looked back, 1 and up."""
    since, at = (datetime.fromisoformat(moment).astimezone(UTC) for moment in (replay.since, replay.at))
    return max(ceil((at - since).total_seconds() / _DAY_S), 1)


def _slice_gate(replay: Replay, limits: ReplaySpec, *, few: str) -> GateResult:
    """Returns what is found of the slice that changes most; a model without a slice of that many rows passes."""
    least, limit = limits.minimum_slice_rows, limits.slice_limit
    judged = [one for one in replay.flips if one.slice != EVERY_SLICE and one.pairs >= least]
    if not judged:
        share = None if replay.flip_share is None else 0.0
        found = _gate(SLICE_FLIPS, share, limit, "the share of answers that it changes in a slice", few=few)
        said = f"no slice has {least:,} row(s) that both answer, so only the share over all rows is judged"
        return replace(found, reason=said, value=None) if found.passed else found
    worst = max(judged, key=lambda one: one.share)
    n_others = sum(one.share > limit for one in judged) - 1
    others = f" (and {n_others:,} more slice(s) are above the maximum)" if n_others > 0 else ""
    said = f"the share of answers that it changes in the slice '{worst.slice}' of {worst.pairs:,} row(s){others}"
    return _gate(SLICE_FLIPS, worst.share, limit, said, few=few)


def _gate(name: str, value: float | None, limit: float, said: str, *, few: str = "") -> GateResult:
    if few:
        verdict, reason, value = Verdict.INCONCLUSIVE, few, None
    elif value is None:
        verdict, reason = Verdict.INCONCLUSIVE, f"{said} was not measured, so it cannot pass"
    elif value <= limit:
        verdict, reason = Verdict.PASSED, f"{said} is {value:.6g}, within the limit"
    else:
        verdict, reason = Verdict.FAILED, f"{said} is {value:.6g}, above the maximum {limit:g}"
    return GateResult(
        gate=name,
        metric=name,
        verdict=verdict,
        reason=reason,
        value=value,
        limit=limit,
        direction="at most",
        blocking=True,
    )


def _fields(replay: Replay) -> dict[str, Any]:
    flips = [{**asdict(one), "flips": [list(pair) for pair in one.flips]} for one in replay.flips]
    return {**asdict(replay), "flips": flips}


def _flips_from(value: object) -> SliceFlips:
    of = exactly(value, "slice", slice=str, pairs=int, share=(float, int), flips=list)
    return SliceFlips(**{**of, "flips": tuple((str(said), int(n)) for said, n in of["flips"])})


_SIDE: dict[str, type] = {"version": str, "digest": str, "refused": dict, "latency_ms": dict}
_KINDS: dict[str, type] = {
    "model": str,
    "stable": dict,
    "candidate": dict,
    "rows_digest": str,
    "n_recorded": int,
    "n_rows": int,
    "n_answered": int,
    "n_refused": int,
    "flips": list,
    "since": str,
    "at": str,
    "digest": str,
}
