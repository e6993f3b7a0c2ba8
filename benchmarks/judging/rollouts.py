"""Seeded streams through a whole rollout: its plan, the judge's look at each minute's windows, and `advance`.

Nothing here decides: each minute is judged by `judge.Evidence` when it has settled, as the rollout job does it, and
what becomes of the rollout, and of the candidate's traffic, is what `rollout.advance` says. Only the windows are made
up. A candidate stays for the whole hour, so that it is looked at sixty times, and whoever has not passed then is taken
back by the clock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import numpy as np

from benchmarks.judging.experiments import CASES, GATES, PAIRED, SHORT, Case, at_most, begun, evidence_of, holed
from benchmarks.judging.streams import START, START_MINUTE, Pair, Traffic, Version, stream
from release_platform.domain.gates import Verdict
from release_platform.domain.judge import SETTLE_S
from release_platform.domain.rollout import Effect, Rollout, RolloutState, Ticked, advance
from release_platform.domain.rollout import Traffic as Routed
from release_platform.domain.strategy import LiveGateSpec, RolloutSpec, ShadowSpec, StageKind, StepSpec, Strategy
from release_platform.domain.windows import Window

WEIGHT = 0.25
HOUR = Traffic(weight=WEIGHT)
"""The traffic of a rollout: 600 requests a minute, a quarter of them the candidate's, for 60 minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """What became of one rollout.

    Attributes:
        promoted: Whether the version came into Production.
        failed: Whether a blocking gate failed, and so aborted it; not the clock.
        back_after: After how many of its minutes no traffic goes to the candidate any more; None: it is promoted.
    """

    promoted: bool
    failed: bool
    back_after: int | None


def rollout_for(gates: tuple[LiveGateSpec, ...], *, minutes: int, shadow: bool = False) -> Rollout:
    """Returns a rollout whose first stage lasts these minutes, and ends by the clock if it has not passed by then."""
    least = 60.0 * minutes
    spec = RolloutSpec(
        strategy=Strategy.SHADOW if shadow else Strategy.CANARY,
        shadow=ShadowSpec(minimum_s=least, maximum_s=least + 60),
        canary=(StepSpec(weight=WEIGHT, minimum_s=least, maximum_s=least + 60),),
        gates=gates,
    )
    return begun(spec)


def fly(rollout: Rollout, windows: Sequence[Window], *, looks: Iterable[int]) -> Flight:
    """Returns what becomes of a rollout that is looked at when each of these minutes, counted from 0, has settled.

    After the last look the clock goes on until the stage's maximum time is over.
    """
    failed = False
    for minute in looks:
        at = START + timedelta(minutes=minute + 1, seconds=SETTLE_S)
        known = [window for window in windows if window.key.minute <= START_MINUTE + minute]
        evidence = evidence_of(rollout, known, at=at)
        rollout, effects = advance(rollout, evidence.event(at))
        failed = failed or evidence.verdict is Verdict.FAILED
        if rollout.ended or rollout.present.kind is StageKind.FULL:
            return _landed(rollout, effects, failed=failed, minutes=minute + 1)
    most = rollout.present.maximum_s
    assert most is not None
    rollout, effects = advance(rollout, Ticked(stage=rollout.stage, at=START + timedelta(seconds=most)))
    return _landed(rollout, effects, failed=failed, minutes=round(most / 60))


def _landed(rollout: Rollout, effects: tuple[Effect, ...], *, failed: bool, minutes: int) -> Flight:
    back = rollout.state is RolloutState.ABORTED and Routed(canary=0.0, shadow=0.0) in effects
    promoted = rollout.present.kind is StageKind.FULL
    return Flight(promoted=promoted, failed=failed, back_after=minutes if back else None)


def flight(seed: int, version: Version, *, shadow: bool = False, traffic: Traffic = HOUR) -> Flight:
    """Returns what becomes of one seeded version, looked at after every window, with all gates of its route."""
    windows = _windows(stream(seed, version, traffic=traffic, shadow=shadow))
    rollout = rollout_for(PAIRED if shadow else GATES, minutes=traffic.minutes, shadow=shadow)
    return fly(rollout, windows, looks=range(traffic.minutes))


def _windows(pairs: Sequence[Pair]) -> list[Window]:
    return [window for pair in pairs for window in pair]


def alike_flown(n: int, *, seed: int = 6_000_000) -> dict[str, float]:
    """Returns what becomes of n versions that are like the stable one, with all five gates at once."""
    flown = [flight(seed + at, Version()) for at in range(n)]
    failed = sum(one.failed for one in flown)
    promoted = sum(one.promoted for one in flown)
    return {"n": n, "failed": failed, "at_most": at_most(failed, n), "promoted": promoted}


def worse_flown(case: Case, n: int, *, seed: int = 7_000_000) -> dict[str, float]:
    """Returns of n versions of a regression how many fail a gate, get no traffic at last, and are promoted; how soon.

    `median`, `most` and `last` are the minutes until no traffic goes to them: of half, of nine in ten, of all of them.
    """
    flown = [flight(seed + at, case.worse, shadow=case.gate == "disagreement") for at in range(n)]
    minutes = [one.back_after for one in flown if one.back_after is not None]
    soon = partial(np.quantile, minutes, method="inverted_cdf") if minutes else lambda _: float("nan")
    return {
        "n": n,
        "failed": sum(one.failed for one in flown),
        "back": len(minutes),
        "promoted": sum(one.promoted for one in flown),
        "median": float(soon(0.5)),
        "most": float(soon(0.9)),
        "last": float(soon(1.0)),
    }


def holes_flown(n: int, *, seed: int = 8_000_000) -> dict[str, int]:
    """Returns how many of n streams with a blocking metric missing are promoted, and of the first without the hole.

    The stage lasts until the hole is there, and is looked at then: what passed earlier passed on what was measured.
    """
    n_whole = min(n, 1000)
    promoted = {"n": n, "holed": 0, "whole": 0, "n_whole": n_whole}
    rollout = rollout_for(GATES, minutes=SHORT.minutes)
    for at in range(n):
        whole, windows = holed(seed + at)
        last = (SHORT.minutes - 1,)
        promoted["holed"] += fly(rollout, windows, looks=last).promoted
        promoted["whole"] += at < n_whole and fly(rollout, whole, looks=last).promoted
    return promoted


def flown(*, n_alike: int, n_worse: int, n_holed: int) -> dict[str, object]:
    """Returns the figures of all of it, as a JSON value."""
    return {
        "alike": alike_flown(n_alike),
        "worse": {case.name: worse_flown(case, n_worse) for case in CASES},
        "holes": holes_flown(n_holed),
    }
