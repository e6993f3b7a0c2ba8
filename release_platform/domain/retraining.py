"""Does the release pipeline of a model start by itself now? What asks for it, and what bounds it.

Drift and new data ask. Whatever asks, it is for one start: an alarm and a change of the data are never answered twice.
So a storm of alarms, or a source that changes all the time, costs `most_per_day` runs a day, one at a time; and where
runs keep failing it ends, since the next one would fail too. It goes to Staging; what comes next a person asks for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from release_platform.domain.drift_day import DriftDay
from release_platform.domain.drift_spec import OnAlarm
from release_platform.domain.freeze import moment_text
from release_platform.domain.lifecycle import Head
from release_platform.domain.retrain_spec import RetrainSpec

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """A run of the release pipeline.

    Attributes:
        at: When it was asked for.
        ended: Whether it ended.
        succeeded: Whether it ended and every blocking gate passed.
        key: The identity of what started it; empty for a person.
    """

    at: datetime
    ended: bool
    succeeded: bool
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Something asks for a run: its identity, the same as long as it is the same, and a sentence."""

    key: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """It starts now, for this."""

    wanted: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """It does not start now.

    Attributes:
        reason: Why.
        bounded: Whether a bound keeps every run from starting, so that it is of no use to look for more to ask for one.
    """

    reason: str
    bounded: bool = False


def find_wanted_by_drift(day: DriftDay | None, head: Head, taken_back: str | None = None) -> Wanted | Wait | None:
    """Returns what a drift alarm asks for, or why that waits; None where it asks for nothing.

    While a version newer than the one that drifted stands in Staging a person decides on that one first.

    Args:
        day: The last day that was reported of a version; None for none.
        head: Where the model's versions stand.
        taken_back: The version that the rollback policy took back since, whose alarm goes on asking; None for none.
    """
    if day is None or day.version not in {head.production, taken_back} or not day.asks_for(OnAlarm.RETRAIN):
        return None
    if head.staging is not None and int(head.staging) > int(day.version):
        return Wait(reason=f"{day.said}; version {head.staging} in Staging waits for a person first")
    return Wanted(key=f"drift-{day.version}-{day.day}", why=day.said)


def decide_retraining(
    spec: RetrainSpec, wanted: Sequence[Wanted], runs: Sequence[PastRun], now: datetime
) -> Start | Wait:
    """Returns whether the release pipeline starts now.

    Args:
        spec: The bounds.
        wanted: What asks for it, the most urgent first.
        runs: The runs of the model's pipeline, the newest first; those of people too.
        now: The present moment.
    """
    bound = _find_bound(spec, runs, now)
    answered = {run.key for run in runs}
    still = [one for one in wanted if one.key not in answered]
    if still and not bound:
        return Start(wanted=still[0])
    reason = "neither drift nor new data asks for a run"
    if wanted:
        reason = still[0].why if still else f"{wanted[0].why}; a run was started for that already"
    return Wait(reason=f"{reason}; {bound}", bounded=True) if bound else Wait(reason=reason)


def _find_bound(spec: RetrainSpec, runs: Sequence[PastRun], now: datetime) -> str:
    """Returns which bound keeps any run from starting now, and until when; empty for none."""
    if any(not run.ended for run in runs):
        return "one at a time: a run is under way, or waits in the queue, until it ends"
    failed = {run.key for run in takewhile(lambda run: run.key and not run.succeeded, runs)}
    if len(failed) >= spec.stop_after:
        return (
            f"stop_after: {len(failed)} retraining(s) in a row did not reach Staging; nothing starts until a person "
            "starts a release: read why they failed, then `release run`"
        )
    mine = [run.at for run in runs if run.key]
    if not mine:
        return ""
    free = [
        (max(mine) + timedelta(seconds=spec.minimum_interval_s), f"minimum_interval_s: {spec.minimum_interval_s:g}")
    ]
    recent = sorted(at for at in mine if at > now - _DAY)
    if len(recent) >= spec.most_per_day:
        free.append((recent[-spec.most_per_day] + _DAY, f"most_per_day: {spec.most_per_day}"))
    until, bound = max(free)
    return f"{bound}; the next one may start at {moment_text(until)}" if until > now else ""
