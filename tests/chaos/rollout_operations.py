"""What drives a rollout and takes a version back, as operations that can be cut off and repeated."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from release_platform.domain.coverage import Owed
from release_platform.domain.errors import NotFound
from release_platform.domain.ledger import moves_production
from release_platform.domain.lifecycle import Share
from release_platform.domain.messages import State
from release_platform.domain.policy import RequestState
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.rollout import Order, Rollout, RolloutState
from release_platform.domain.spec import ModelSpec
from release_platform.domain.strategy import Strategy
from release_platform.domain.verified import Found, Verified
from release_platform.domain.windows import Route, Window, WindowKey
from release_platform.rollouts import Rollouts
from release_platform.watch import Watch
from tests.chaos.operations import MODEL, POLICY, Operation, Parts
from tests.fakes.clock import FakeClock
from tests.fakes.rollout_world import PLAN
from tests.unit.test_spec import spec

SPEC: ModelSpec = replace(spec(), policy=POLICY, rollout=PLAN, rollback_policy=RollbackSpec(gates=()))
MINUTES = 5
ARMS = {Route.CANARY: "3", Route.STABLE: "2"}


def rollouts(parts: Parts, at: datetime | None = None) -> Rollouts:
    return Rollouts(parts.releases, None, None if at is None else FakeClock(at))


def begin(parts: Parts, strategy: Strategy) -> None:
    rollouts(parts).carry_out("q3", replace(SPEC, rollout=replace(PLAN, strategy=strategy)))


def order(parts: Parts, what: Order) -> None:
    rollouts(parts).order(MODEL, what, actor="grace", reason="looked at it", policy=POLICY)


def kept(parts: Parts) -> Rollout:
    return rollouts(parts).get(MODEL).rollout


def look(parts: Parts, *, after_s: float) -> None:
    """Does what the sensor does with a rollout, so long after the state was made."""
    rollouts(parts, _made(parts) + timedelta(seconds=after_s)).step(MODEL, SPEC)


def _made(parts: Parts) -> datetime:
    return datetime.fromisoformat((parts.place.home / "made").read_text())


def watch(parts: Parts) -> None:
    """Does what the sensor does with the version in Production, a while after its promotion."""
    at = _made(parts) + timedelta(seconds=90)
    Watch(parts.releases, rollouts(parts, at), None, FakeClock(at)).look(MODEL, SPEC)


def watch_and_look(parts: Parts) -> None:
    """Does both, in the sensor's order."""
    look(parts, after_s=90)
    watch(parts)
    look(parts, after_s=95)


# States


def note(parts: Parts, at: datetime) -> None:
    (parts.place.home / "made").write_text(at.isoformat())


def make_canary(parts: Parts, *, errors: int = 0) -> None:
    """Version 3 is a canary beside 2, and requests came for some minutes at which nobody has looked."""
    begin(parts, Strategy.CANARY)
    since = kept(parts).since
    note(parts, since)
    first = int(since.timestamp() // 60) + 1
    failed = {"timeout": errors} if errors else {}
    for minute in range(first, first + MINUTES):
        keys = {route: WindowKey(model=MODEL, version=v, route=route, minute=minute) for route, v in ARMS.items()}
        canary = Window(key=keys[Route.CANARY], requests=200, errors=failed)
        parts.store.windows.record("r", [canary, Window(key=keys[Route.STABLE], requests=900)])
        parts.store.windows.record_owed(MODEL, [Owed(minute=minute, url="http://one", told=True)])


def make_bad_canary(parts: Parts) -> None:
    """The same, and most of the canary's requests failed."""
    make_canary(parts, errors=150)


def make_baking(parts: Parts) -> None:
    """Version 3 has all traffic, and its rollout can still be aborted."""
    begin(parts, Strategy.CANARY)
    order(parts, Order.PROMOTE)
    note(parts, kept(parts).since)


def make_unlike(parts: Parts) -> None:
    """Version 3 was promoted by a rollout that bakes, and live servers answer otherwise, as two verifications found."""
    make_baking(parts)
    verify(parts)


def make_worse(parts: Parts) -> None:
    """Version 2 is in Production, and live servers answer otherwise."""
    verify(parts)


def verify(parts: Parts) -> None:
    row = [row for row in parts.store.ledger(MODEL) if moves_production(row)][-1]
    promoted = datetime.fromisoformat(row.at)
    note(parts, promoted)
    for after_s in (20, 60):
        verified = Verified(
            model=MODEL,
            version=row.version,
            digest=row.digest,
            epoch=row.epoch,
            at=(promoted + timedelta(seconds=after_s)).isoformat(),
            found=Found.FAILED,
            servers=("http://one",),
            problems=("http://one: the answer is another",),
        )
        parts.store.verifications.record(verified)


ROLLOUT_STATES: dict[str, tuple[str, Callable[[Parts], None]]] = {
    "canary": ("grown", make_canary),
    "bad canary": ("grown", make_bad_canary),
    "baking": ("grown", make_baking),
    "unlike": ("grown", make_unlike),
    "worse": ("grown", make_worse),
}


# What must have come of it


def is_at(
    parts: Parts,
    state: RolloutState,
    *,
    production: str,
    canary: float | None = None,
    shadow: float | None = None,
    told: tuple[str, ...] = (),
) -> bool:
    """Whether rollout, head, request and outbox all say the same, and each message is there once."""
    head = parts.store.head(MODEL)
    shares = [None if weight is None else Share(version="3", weight=weight) for weight in (canary, shadow)]
    try:
        rollout = kept(parts)
    except NotFound:
        return False
    settled = parts.store.rollouts.find_current(MODEL) is None
    promoted = any(row.request_id == "q3" for row in parts.store.ledger(MODEL))
    refused = RequestState.REFUSED if state is RolloutState.ABORTED else RequestState.OPEN
    return bool(
        (rollout.state, settled) == (state, rollout.ended)
        and (head.production, head.canary, head.shadow) == (production, *shares)
        and parts.store.get_request("q3").state is (RequestState.PROMOTED if promoted else refused)
        and messages(parts) == Counter(told)
    )


def messages(parts: Parts) -> Counter[str]:
    return Counter(posted.message.kind.value for posted in parts.store.outbox.find(State.WAITING))


BACK = ("rollout_aborted", "rolled_back")
BACK_BY_ITSELF = ("rollout_aborted", "rolled_back_automatically")

ROLLOUT_OPERATIONS = (
    Operation(
        name="canary begins",
        start="grown",
        run=lambda parts: begin(parts, Strategy.CANARY),
        done=lambda parts: is_at(parts, RolloutState.RUNNING, production="2", canary=0.1),
    ),
    Operation(
        name="shadow begins",
        start="grown",
        run=lambda parts: begin(parts, Strategy.SHADOW),
        done=lambda parts: is_at(parts, RolloutState.RUNNING, production="2", shadow=0.5),
    ),
    Operation(
        name="next step",
        start="canary",
        run=lambda parts: look(parts, after_s=60 * (MINUTES + 1)),
        done=lambda parts: is_at(parts, RolloutState.RUNNING, production="2", canary=0.5),
    ),
    Operation(
        name="judge aborts",
        start="bad canary",
        run=lambda parts: look(parts, after_s=60 * (MINUTES + 1)),
        done=lambda parts: is_at(parts, RolloutState.ABORTED, production="2", told=("rollout_aborted",)),
    ),
    Operation(
        name="person aborts",
        start="canary",
        run=lambda parts: order(parts, Order.ABORT),
        done=lambda parts: is_at(parts, RolloutState.ABORTED, production="2", told=("rollout_aborted",)),
    ),
    Operation(
        name="all traffic",
        start="canary",
        run=lambda parts: order(parts, Order.PROMOTE),
        done=lambda parts: is_at(parts, RolloutState.RUNNING, production="3"),
    ),
    Operation(
        name="rollout completed",
        start="baking",
        run=lambda parts: look(parts, after_s=PLAN.bake_s + 1),
        done=lambda parts: is_at(parts, RolloutState.COMPLETED, production="3"),
    ),
    Operation(
        name="abort while it bakes",
        start="baking",
        run=lambda parts: order(parts, Order.ABORT),
        done=lambda parts: is_at(parts, RolloutState.ABORTED, production="2", told=BACK),
    ),
    Operation(
        name="rollback by policy",
        start="worse",
        run=watch,
        done=lambda parts: (
            parts.store.head(MODEL).production == "1" and messages(parts) == Counter(["rolled_back_automatically"])
        ),
    ),
    Operation(
        name="rollback by policy while it bakes",
        start="unlike",
        run=watch_and_look,
        done=lambda parts: is_at(parts, RolloutState.ABORTED, production="2", told=BACK_BY_ITSELF),
    ),
)
