"""Where the versions and requests of a model stand, as JSON values: what every door shows."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.drift_day import DriftDay
from release_platform.domain.drill import find_unfinished, readiness
from release_platform.domain.errors import DataError, NotFound
from release_platform.domain.flips import flip_report
from release_platform.domain.freeze import find_freeze
from release_platform.domain.judge import Assessment
from release_platform.domain.ledger import LedgerRow, standing_at
from release_platform.domain.lifecycle import Head
from release_platform.domain.messages import State as MessageState
from release_platform.domain.messages import sentence
from release_platform.domain.policy import PromotionRequest, RequestState, judged_approvals
from release_platform.project import Project
from release_platform.releases import Releases
from release_platform.rollouts import Rollouts

LATE = timedelta(minutes=2)
"""A message that waits for longer is told: `message_sensor` looks four times a minute."""
_NEVER_SENT = (
    "nothing has tried to send it. See the last tick of `message_sensor`: it must be on, and where it runs "
    "RELEASE_NOTIFY_SECRET must be set to 32 characters or more if an address of RELEASE_NOTIFY_URL is not Slack's"
)
_NOBODY_LOOKS = "a Dagster daemon must run, and `rollout_sensor` be on; see its last tick"


def model_status(project: Project, head: Head) -> dict[str, Any]:
    """Returns what a model is, and where its versions stand."""
    spec = project.spec
    return {
        "model": spec.name,
        "task": spec.task.value,
        "owner": spec.owner,
        "staging": head.staging,
        "production": head.production,
        "description": spec.description,
    }


def status_of(releases: Releases, project: Project) -> dict[str, Any]:
    """Returns where versions stand, what is asked for and what it waits for, and what the registry shows wrongly."""
    name, policy = project.spec.name, project.spec.policy
    head = releases.store.head(name)
    freeze = find_freeze(policy.freeze, datetime.now(UTC))
    drift = releases.store.drift.find_last(name, head.production)
    return {
        **head.to_json(),
        "registry_wrong": _lasting_deviations(releases, name) if head.epoch else [],
        "frozen": freeze.said if freeze else None,
        "drift": None if drift is None else drift_status(drift),
        "rollback": rollback_status(releases, head),
        "messages_given_up": messages_given_up(releases.store, name),
        "messages_waiting": messages_waiting(releases.store, name, datetime.now(UTC)),
        "requests": [
            request_status(releases, project, request) for request in releases.store.requests(name, RequestState.OPEN)
        ],
    }


def messages_given_up(store: ReleaseStore, model: str) -> list[str]:
    """Returns a sentence for each message of a model that could not be delivered to everybody."""
    given_up = store.outbox.find(MessageState.GIVEN_UP)
    return [sentence(posted.message) for posted in given_up if posted.message.model == model]


def messages_waiting(store: ReleaseStore, model: str, now: datetime) -> str | None:
    """Returns since when messages of a model wait to be delivered, and why; None while none does for long."""
    waiting = [posted for posted in store.outbox.find(MessageState.WAITING) if posted.message.model == model]
    late = [posted for posted in waiting if now - datetime.fromisoformat(posted.message.at) > LATE]
    if not late:
        return None
    problems = [delivery.problem for delivery in late[0].deliveries.values() if delivery.problem]
    why = "; ".join(dict.fromkeys(problems)) or _NEVER_SENT
    return f"{len(late)} message(s) wait to be delivered, the first since {late[0].message.at}: {why}"


def drift_status(day: DriftDay) -> dict[str, Any]:
    """Returns what a report said of a day, whether it holds promotions, and who lifted that."""
    lifted = f"; lifted by {day.lift.actor}: {day.lift.reason}" if day.lift else ""
    return {
        **day.to_json(),
        "said": (day.hold or day.said) + lifted,
        "alarmed": day.alarmed,
        "holds": bool(day.hold),
        "lift": None if day.lift is None else asdict(day.lift),
    }


def rollback_status(releases: Releases, head: Head) -> dict[str, Any] | None:
    """Returns whether a rollback was shown to work, how long it took, and when; None when there is none to do."""
    last = releases.store.drills.find_last(head.model)
    row = find_unfinished(releases.store.ledger(head.model))
    if row is None:
        return readiness(last, head, datetime.now(UTC))
    home = row.before["production"]
    said = f"a drill is under way, or was cut off: `release drill {head.model}` brings version {home} back"
    return {"ready": None, "said": said, "last": None if last is None else last.to_json()}


def request_status(releases: Releases, project: Project, request: PromotionRequest) -> dict[str, Any]:
    """Returns who asked for what, and of an open request what is missing and who approved it."""
    facts = releases.facts(request, project.spec.policy)
    is_open = request.state is RequestState.OPEN
    return {
        "request_id": request.request_id,
        "model": request.model,
        "version": request.version,
        "actor": request.actor,
        "reason": request.reason,
        "requested_at": request.requested_at.isoformat(),
        "state": request.state.value,
        "outcome": request.outcome,
        "strategy": request.strategy,
        "asked": None if request.asked.says_nothing else request.asked.to_json(),
        "rollout": _rollout_of(releases, request),
        "missing": list(releases.missing(facts)) if is_open else [],
        "approvals": [
            {
                "actor": judged.approval.actor,
                "reason": judged.approval.reason,
                "standing": judged.standing.value,
                "valid_until": judged.until.isoformat() if judged.until else None,
                "said": judged.said,
            }
            for judged in judged_approvals(facts)
        ],
    }


def _rollout_of(releases: Releases, request: PromotionRequest) -> str | None:
    """Returns where the rollout of a request stands, in a few words; None without one."""
    kept = releases.store.rollouts.find(request.request_id)
    return None if kept is None else kept.rollout.said


def rollout_status(rollouts: Rollouts, project: Project) -> dict[str, Any]:
    """Returns where a model's rollout stands, and what the judge finds; of none under way, the one that began last.

    Raises:
        NotFound: There never was one.
    """
    kept = rollouts.get(project.spec.name)
    rollout, evidence = kept.rollout, rollouts.evidence(kept.rollout)
    policy = project.spec.policy
    due, elapsed_s = rollouts.overdue(rollout, policy), rollout.elapsed_s(datetime.now(UTC), policy.freeze)
    return {
        "model": rollout.model,
        "request_id": rollout.rollout_id,
        "version": rollout.candidate,
        "stable": rollout.stable,
        "strategy": rollout.plan.strategy.value,
        "state": rollout.state.value,
        "said": rollout.said,
        "stage": rollout.stage + 1,
        "stages": [{"said": stage.said, **asdict(stage)} for stage in rollout.plan.stages],
        "since": rollout.since.isoformat(),
        "elapsed_s": None if rollout.ended else round(elapsed_s, 1),
        "reason": rollout.reason,
        "actor": rollout.actor,
        "settled": kept.settled,
        "overdue": None if due is None else f"nobody has looked at it since {due.isoformat()}: {_NOBODY_LOOKS}",
        "gates": [] if evidence is None else [_gate_status(one) for one in evidence.found],
        "flips": [] if evidence is None else [asdict(of) for of in flip_report(evidence.windows)],
        "holes": {} if evidence is None else {str(minute): list(urls) for minute, urls in evidence.holes.items()},
        "assessment": rollouts.assessment(rollout),
    }


def _gate_status(found: Assessment) -> dict[str, Any]:
    result = found.result
    return {
        "gate": result.gate,
        "verdict": result.verdict.value,
        "blocking": result.blocking,
        "value": result.value,
        "margin": result.limit,
        "n_more": found.n_more,
        "reason": result.reason,
    }


def served_at(rows: Sequence[LedgerRow], model: str, moment: datetime) -> dict[str, Any]:
    """Returns which version was in Production at a moment, and the row that put it there.

    Raises:
        NotFound: None was.
    """
    row = standing_at(rows, moment)
    version = row.after["production"] if row else None
    if row is None or version is None:
        raise NotFound(
            f"{model}: nothing was in Production at {moment.isoformat()}", remedy=f"`release history {model}`"
        )
    put = [r for r in rows if r.epoch <= row.epoch and r.version == version and r.after["production"] == version][-1]
    return {"model": model, "at": moment.isoformat(), "version": version, "by": put.to_json()}


def moment_of(text: str) -> datetime:
    """Returns the moment of an ISO 8601 text, which is past; without an offset it is UTC.

    Raises:
        DataError: It is none, or is still to come.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"'{text:.100}' is not an ISO 8601 time", remedy="write it like 2026-03-01T12:00") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > datetime.now(UTC):
        raise DataError(f"{moment.isoformat()} is still to come", remedy="`release status MODEL` shows what is now")
    return moment


def _lasting_deviations(releases: Releases, name: str) -> list[str]:
    """Returns what the registry shows wrongly now and a moment later: a move that is under way is no fault."""
    if not releases.projection.deviations(name):
        return []
    sleep(2)
    return [one.sentence for one in releases.projection.deviations(name)]
