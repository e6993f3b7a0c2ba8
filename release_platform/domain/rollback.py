"""When a version that a person promoted is taken back by itself: it is worse in Production than the one before it was.

After a promotion there is no concurrent control, so the version is compared with the *record* of the one before: the
last windows that it had in Production and that have anything for the gate. Each minute of the version is paired with a
minute of the record, in order, and the e-process of the judge collects the evidence that its share of bad requests is
more than a margin above. Of the record only those outcomes count that came as soon after their predictions as those of
the version could. The record is used again for each period of its length, at levels that fall with the square of the
period's number, so that they add up to `false_rollback` however long a version is watched. That holds while traffic is
what it was in the record. What changes with the hour, such as an evening of other clients, is no fault of the
version and may look like one: keep margins wide, or leave the gate out.

Live servers that answer otherwise than the registry's model, as several verifications in a row found, take it back too:
that needs no record, and no requests.

What it never does:

- go anywhere but to the version before, which was in Production;
- act after a rollback, by whomever: then a person decides what comes next. So it cannot flap. A drill, which brings
  back what it took away, is none;
- act within `hold_off_s` of its own last rollback, whatever was promoted since.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from math import ceil, log, pi
from typing import Any

from release_platform.domain.drift_day import DriftDay
from release_platform.domain.drift_spec import OnAlarm
from release_platform.domain.drill import find_drill, find_unfinished
from release_platform.domain.judge import evidence_over_time, settled_minute
from release_platform.domain.ledger import LedgerRow, moves_production
from release_platform.domain.lifecycle import Head, Move
from release_platform.domain.live_metrics import Arms, tables_of
from release_platform.domain.percent import percent, points
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.strategy import LiveGateSpec, LiveMetric
from release_platform.domain.verified import Verified, failures_of, sentence_of
from release_platform.domain.windows import LABEL, Route, Window

POLICY = "rollback_policy"
"""The actor of what the policy does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The version in Production and the record that it is held against.

    Attributes:
        row: The promotion that put it there.
        before: The version before, whose record it is: the only one that it may be taken back to.
        since: The first whole minute of the version in Production, since 1970.
    """

    row: LedgerRow
    before: str
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The version is to be taken back.

    Attributes:
        watched: Which version, and to which one.
        reason: Why, in a sentence.
        found: All that this rests on, as JSON: a gate with its counts, verifications, or a day of drift.
    """

    watched: Watched
    reason: str
    found: Mapping[str, Any]


def find_watched(spec: RollbackSpec, head: Head, rows: Sequence[LedgerRow], at: datetime) -> Watched | str:
    """Returns what the policy watches at a moment, or a sentence that says why it does not act."""
    if find_unfinished(rows) is not None:
        return "a drill of the rollback is under way"
    moves = _decisions(rows)
    if not moves:
        return "nothing is in Production"
    last = moves[-1]
    if last.move is not Move.PROMOTED:
        return f"version {last.version} was brought back by {last.actor}: a person decides what comes next"
    if not head.previous:
        return "there is no version before to go back to"
    promoted = datetime.fromisoformat(last.at)
    if (at - promoted).total_seconds() > spec.watch_s:
        return f"version {last.version} was watched for {spec.watch_s:g} s"
    own = [row for row in moves if row.actor == POLICY]
    if own:
        until = datetime.fromisoformat(own[-1].at) + timedelta(seconds=spec.hold_off_s)
        if at < until:
            return f"it rolled back at {own[-1].at}, and holds off until {until.isoformat()}"
    return Watched(row=last, before=head.previous[-1], since=ceil(promoted.timestamp() / 60))


def find_taken_back(rows: Sequence[LedgerRow]) -> str | None:
    """Returns the version that the policy took back, while nobody moved Production since; None for none."""
    moves = _decisions(rows)
    if not moves or moves[-1].actor != POLICY:
        return None
    taken: str | None = moves[-1].before["production"]
    return taken


def _decisions(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    return [row for row in rows if moves_production(row) and find_drill(row) is None]


def judge_verified(
    spec: RollbackSpec, watched: Watched, verified: Sequence[Verified], at: datetime
) -> Taken | tuple[str, ...]:
    """Returns that the version is to be taken back, or what its verifications say; nothing while none failed.

    Args:
        spec: The policy.
        watched: What it watches.
        verified: What verifications of the model's live servers showed.
        at: The present moment.
    """
    failed = failures_of(watched.row, verified, at)
    if not failed or not spec.failed_verifications:
        return ()
    if len(failed) >= spec.failed_verifications:
        found = {"verifications": [one.to_json() for one in failed]}
        return Taken(watched=watched, reason=sentence_of(failed), found=found)
    return (f"{sentence_of(failed)}; {spec.failed_verifications} in a row take it back",)


def find_drift(watched: Watched, day: DriftDay | None) -> Taken | None:
    """Returns that the version is to be taken back because it drifted, where the model's YAML asks for it, or None.

    Args:
        watched: What the policy watches; so whatever keeps the policy from acting keeps drift from it too.
        day: The last day that was reported of the version; None for none. A day before its promotion, or a report from
            before, is no evidence: whoever promoted it again could know of that.
    """
    promoted = datetime.fromisoformat(watched.row.at)
    if day is None or day.version != watched.row.version or not day.asks_for(OnAlarm.ROLL_BACK):
        return None
    if day.day < promoted.astimezone(UTC).date() or datetime.fromisoformat(day.at) < promoted:
        return None
    return Taken(watched=watched, reason=day.said, found={"drift": day.to_json()})


def judge_watched(
    spec: RollbackSpec, watched: Watched, windows: Iterable[Window], at: datetime
) -> Taken | tuple[str, ...]:
    """Returns that the version is to be taken back, or a sentence for each gate that was judged.

    Without a record, or without requests since, nothing is taken back: no data is no evidence.

    Args:
        spec: The policy.
        watched: What it watches.
        windows: Those of the model, of both versions, those of several replicas added up.
        at: The present moment.
    """
    until = settled_minute(at)
    stable = sorted((w for w in windows if w.key.route is Route.STABLE), key=lambda w: w.key.minute)
    before = [w for w in stable if w.key.version == watched.before and w.key.minute < watched.since - 1]
    since = [w for w in stable if w.key.version == watched.row.version and watched.since <= w.key.minute <= until]
    said: list[str] = []
    n_blocking = max(sum(gate.blocking for gate in spec.gates), 1)
    for gate in spec.gates:
        record = [w for w in before if _tells(gate, w)][-spec.record_minutes :]
        present = [w for w in since if _tells(gate, w)]
        if not record or not present:
            of = watched.before if not record else watched.row.version
            said.append(f"{gate.name}: no minute of version {of} was measured")
            continue
        for number, arms in list(enumerate(_periods(present, record)))[-2:]:
            level = spec.false_rollback / n_blocking * 6 / (pi * (number + 1)) ** 2
            worse, sentence, found = _judged(gate, arms, watched, level)
            if worse and gate.blocking:
                return Taken(watched=watched, reason=sentence, found={"gate": found})
        said.append(sentence)
    return tuple(said)


def _tells(gate: LiveGateSpec, window: Window) -> bool:
    """Whether a minute has anything for a gate: outcomes come when they come, also all of a day in one minute."""
    match gate.metric:
        case LiveMetric.LABEL_QUALITY | LiveMetric.OUTCOME:
            return bool(window.outcomes.get(LABEL if gate.outcome is None else gate.outcome))
        case _:
            return window.requests > 0


def _periods(present: Sequence[Window], record: Sequence[Window]) -> list[list[Arms]]:
    n = len(record)
    return [list(zip(present[k : k + n], record, strict=False)) for k in range(0, len(present), n)]


def _judged(gate: LiveGateSpec, arms: list[Arms], watched: Watched, level: float) -> tuple[bool, str, dict[str, Any]]:
    """Returns whether the version is worse, the sentence that says it, and what it rests on, as JSON."""
    tables = tables_of(gate, arms, since=watched.since)
    total = tables.sum(axis=1)
    if not total[:, 0].any() or not total[:, 2].any():
        return False, f"{gate.name}: nothing was measured", {}
    worse, _ = evidence_over_time(gate, tables)
    shares = [(k_c / max(n_c, 1), n_c, k_s / max(n_s, 1), n_s) for n_c, k_c, n_s, k_s in total.tolist()]
    share, n, before, n_before = max(shares, key=lambda s: s[0] - s[2])
    record = f"{percent(before)} of {n_before:,} in the record of version {watched.before}"
    more = f"{points(share - before)}, {gate.accepted * 100:.4g} accepted"
    sentence = f"{gate.name}: {percent(share)} of {n:,} bad, {record}: {more}"
    found = {
        **asdict(gate),
        "gate": gate.name,
        "accepted": gate.accepted,
        "level": level,
        "worse": float(worse[-1]),
        "minutes": [present.key.minute for present, _ in arms],
        "record": [before_it.key.minute for _, before_it in arms],
        "counts": tables.tolist(),
    }
    return bool(worse[-1] >= log(1 / level)), sentence, found
