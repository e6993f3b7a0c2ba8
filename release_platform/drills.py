"""Drills: Production goes to the previous version and back under load, and every answer meanwhile is compared.

The ledger is the only state: a drill that was cut off is one whose first move is the last of Production, and whoever
looks next brings the version back that was there before. Its two moves have ids of their own, so nothing is done twice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.live_questions import Heard, Questions, judged
from release_platform.domain.drill import (
    REASON,
    Answer,
    Drilled,
    Half,
    Outcome,
    Route,
    drill_move_id,
    find_drill,
    find_unfinished,
    plan_drill,
    slowest,
    swap_ms,
)
from release_platform.domain.errors import (
    IntegrityError,
    NotFound,
    Refused,
    ReleaseError,
    StaleEpoch,
    Unavailable,
    VerificationFailed,
)
from release_platform.domain.freeze import find_freeze
from release_platform.domain.ledger import LedgerRow, moves_production
from release_platform.domain.policy import RequestState
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.ports import Clock
from release_platform.domain.verification import Expected
from release_platform.releases import Releases, check_words
from release_platform.services import Services
from release_platform.settings import NO_SERVER
from release_platform.verification import expected_of

AUTOMATIC = "drill"
"""The actor of what no person ordered: the schedule, and the sensor that brings back what was cut off."""
BEFORE_S, WITHIN_S, HOLD_S = 10.0, 30.0, 1.0
"""Seconds for right answers before the first move, for those of the other version after each, and to watch it then."""
CUT_OFF_S = 120.0
"""A drill is back long before; one whose first move is older was cut off."""
ATTEMPTS = 5
MOST_PROBLEMS = 10
Moved = Callable[[LedgerRow, Sequence[str]], None]
"""Is given each move that was made, and what the servers said to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who wants which drill, and why."""

    model: str
    drill_id: str
    actor: str
    reason: str

    @property
    def said(self) -> str:
        """The reason in the ledger."""
        return self.reason if self.reason.startswith(REASON) else REASON + self.reason


class Drills:
    """The drills of all models in one release store, over the live servers.

    Args:
        releases: What moves Production.
        urls: The servers that are asked meanwhile.
        clock: The time.
        api_key: What they ask for; empty for none.
    """

    def __init__(
        self, releases: Releases, urls: Sequence[str], clock: Clock | None = None, *, api_key: str = ""
    ) -> None:
        self._releases = releases
        self._store = releases.store
        self._urls = tuple(urls)
        self._clock = clock or SystemClock()
        self._api_key = api_key

    def run(self, order: Order, policy: PolicySpec, *, moved: Moved = lambda *_: None) -> Drilled:
        """Drills a model's rollback, keeps what it showed in the release store, and returns it.

        Where a drill was cut off it brings Production back instead. The same drill again changes nothing.

        Raises:
            Refused: No drill is possible now, and says why; nothing was moved.
            VerificationFailed: A server answers wrongly before the drill; nothing was moved.
            Unavailable: An outside system or a server does not answer.
        """
        check_words("a drill", order.actor, order.reason)
        model = order.model
        known = self._store.drills.find(order.drill_id)
        if known is not None:
            return known
        rows = self._store.ledger(model)
        cut_off = find_unfinished(rows)
        if cut_off is not None:
            return self._recover(cut_off, order.actor, moved)
        if any(of[0] == order.drill_id for of in map(find_drill, rows) if of is not None):
            raise Refused(
                f"{model}: the drill {order.drill_id} moved Production and back, but what it showed was not kept",
                remedy="make another drill",
            )
        route, epoch = self._plan(model, policy)
        rows = self._store.ledger(model)
        try:
            home = expected_of(self._releases, _put(rows, route.home))
            away = expected_of(self._releases, _put(rows, route.away), home.golden.columns)
        except (IntegrityError, NotFound) as error:
            return self._keep(order, route, Outcome.NOT_READY, problems=(error.problem,))
        return self._drill(order, route, epoch, home, away, moved)

    def recover(self, model: str, *, older_than_s: float = CUT_OFF_S, moved: Moved = lambda *_: None) -> Drilled | None:
        """Brings Production back where a drill was cut off, so many seconds ago at least; None where none was.

        Raises:
            Unavailable: An outside system does not answer.
        """
        row = find_unfinished(self._store.ledger(model))
        if row is None or (self._clock.now() - datetime.fromisoformat(row.at)).total_seconds() < older_than_s:
            return None
        return self._recover(row, AUTOMATIC, moved)

    def _plan(self, model: str, policy: PolicySpec) -> tuple[Route, int]:
        """Returns where the drill goes, and the epoch that was looked at."""
        if not self._urls:
            raise NotFound(NO_SERVER, remedy="a drill needs live servers: set it")
        frozen = find_freeze(policy.freeze, self._clock.now())
        if frozen is not None:
            raise Refused(f"{model}: {frozen.said}", remedy="drill after that; a rollback is never held")
        kept = self._store.rollouts.find_current(model)  # before the head: what begins later shows in its epoch
        if kept is not None:
            raise Refused(
                f"{model}: the rollout of version {kept.rollout.candidate} is under way",
                remedy=f"drill when it has ended; see `release rollout status {model}`",
            )
        head = self._store.head(model)
        for request in self._store.requests(model, RequestState.OPEN):
            if not self._releases.missing(self._releases.facts(request, policy)):
                raise Refused(
                    f"{model}: request {request.request_id} of {request.actor} is being carried out",
                    remedy="drill when it is done",
                )
        return plan_drill(head), head.epoch

    def _drill(self, order: Order, route: Route, epoch: int, home: Expected, away: Expected, moved: Moved) -> Drilled:
        with Questions(self._urls, home, self._clock, api_key=self._api_key) as questions:
            self._check_before(questions, home)
            with questions.quickly():
                try:
                    there = self._move(order, Half.THERE, route.away, epoch, moved)
                    questions.wait(_names(there), within_s=WITHIN_S, now=monotonic)
                    questions.go_on(HOLD_S)
                finally:  # whatever stopped it, the move may be committed
                    back = self._return(order, moved)
                assert back is not None
                if find_drill(back) == (order.drill_id, Half.BACK):
                    questions.wait(_names(back), within_s=WITHIN_S, now=monotonic)
                    questions.go_on(HOLD_S)
            questions.stop()
            heard = {url: questions.heard(url) for url in self._urls}
        if find_drill(back) != (order.drill_id, Half.BACK):
            problem = f"version {back.version} was {back.move} by {back.actor} meanwhile ({back.reason}), and stays"
            n_requests = sum(map(len, heard.values()))
            return self._keep(order, route, Outcome.OVERTAKEN, problems=(problem,), n_requests=n_requests)
        allowed = (home, replace(away, epoch=there.epoch), replace(home, epoch=back.epoch))
        answers = {url: [judged(one, allowed) for one in said] for url, said in heard.items()}
        return self._found(order, route, answers, there, back)

    def _check_before(self, questions: Questions, home: Expected) -> None:
        """Requires a right answer of every server before anything moves."""

        def is_right(heard: Heard) -> bool:
            return not judged(heard, [home]).problem

        if questions.wait(is_right, within_s=BEFORE_S, now=monotonic):
            return
        last = [heard[-1] for url in self._urls if (heard := questions.heard(url))]
        wrong = [one for one in last if not is_right(one)]
        said = "\n".join(judged(one, [home]).problem for one in wrong) or "a server does not answer"
        kind = Unavailable if all(one.away for one in wrong) else VerificationFailed
        raise kind(
            said, remedy=f"nothing was moved; `release verify {home.model}` shows what is wrong, then drill again"
        )

    def _found(
        self, order: Order, route: Route, answers: dict[str, list[Answer]], there: LedgerRow, back: LedgerRow
    ) -> Drilled:
        servers = {url: _times(said, there, back) for url, said in answers.items()}
        late = [
            f"{url}: version {version} did not answer for good within {WITHIN_S:g} s"
            for place, version in enumerate((route.away, route.home))
            for url, times in servers.items()
            if times[place] is None
        ]
        wrong = [answer.problem for said in answers.values() for answer in said if answer.problem]
        problems = tuple(dict.fromkeys((*wrong, *late)))[:MOST_PROBLEMS]
        return self._keep(
            order,
            route,
            Outcome.NOT_READY if problems else Outcome.READY,
            problems=problems,
            there_ms=slowest(times[0] for times in servers.values()),
            back_ms=slowest(times[1] for times in servers.values()),
            servers=servers,
            n_requests=sum(map(len, answers.values())),
            n_failures=len(wrong),
        )

    def _keep(
        self,
        order: Order,
        route: Route,
        outcome: Outcome,
        *,
        problems: tuple[str, ...],
        there_ms: float | None = None,
        back_ms: float | None = None,
        servers: dict[str, list[float | None]] | None = None,
        n_requests: int = 0,
        n_failures: int = 0,
    ) -> Drilled:
        return self._store.drills.record(
            Drilled(
                drill_id=order.drill_id,
                model=order.model,
                home=route.home,
                away=route.away,
                at=self._clock.now().isoformat(),
                actor=order.actor,
                outcome=outcome,
                there_ms=there_ms,
                back_ms=back_ms,
                servers=servers or {},
                n_requests=n_requests,
                n_failures=n_failures,
                problems=problems,
            )
        )

    def _recover(self, there: LedgerRow, actor: str, moved: Moved) -> Drilled:
        """Brings Production back after a drill that was cut off, and keeps that it was."""
        back = self._bring_back(there, actor, f"{REASON}the one of {there.actor} was cut off", moved)
        of = find_drill(there)
        assert of is not None
        route = Route(home=there.before["production"], away=there.version)
        order = Order(model=there.model, drill_id=of[0], actor=there.actor, reason=there.reason)
        done = f"version {back.version} was {back.move} by {back.actor}"
        if find_drill(back) == (of[0], Half.BACK):
            return self._keep(order, route, Outcome.CUT_OFF, problems=(f"the drill was cut off; {done}",))
        return self._keep(order, route, Outcome.OVERTAKEN, problems=(f"the drill was cut off; {done}, and stays",))

    def _return(self, order: Order, moved: Moved) -> LedgerRow | None:
        """Brings Production back after the first move of a drill; None where that was not made."""
        mark = (order.drill_id, Half.THERE)
        there = next((row for row in self._store.ledger(order.model) if find_drill(row) == mark), None)
        return None if there is None else self._bring_back(there, order.actor, order.said, moved)

    def _bring_back(self, there: LedgerRow, actor: str, reason: str, moved: Moved) -> LedgerRow:
        """Moves Production back and returns the row; where somebody moved it meanwhile, their row.

        What moves something else, such as a version that comes to Staging, holds nothing up.
        """
        of = find_drill(there)
        assert of is not None
        order = Order(model=there.model, drill_id=of[0], actor=actor, reason=reason)
        for attempt in range(ATTEMPTS):
            rows = self._store.ledger(there.model)
            last = [row for row in rows if moves_production(row)][-1]
            if last.epoch != there.epoch:
                return last
            try:
                return self._move(order, Half.BACK, there.before["production"], rows[-1].epoch, moved)
            except StaleEpoch:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _move(self, order: Order, half: Half, version: str, epoch: int, moved: Moved) -> LedgerRow:
        said: list[str] = []
        row = self._releases.rollback(
            order.model,
            to=version,
            actor=order.actor,
            reason=order.said,
            request_id=drill_move_id(order.drill_id, half),
            expected_epoch=epoch,
            tell=said.append,
        )
        moved(row, said)
        return row


def drills_of(services: Services) -> Drills:
    """Returns the drills over the servers of the settings."""
    settings = services.settings
    return Drills(services.releases, services.server_urls, api_key=settings.serving_api_key.get_secret_value())


def failure_of(drilled: Drilled) -> ReleaseError | None:
    """Returns the error by which a command or a run ends after a drill, or None after a good one."""
    said = f"{drilled.model}: {'; '.join(drilled.problems)}"
    match drilled.outcome:
        case Outcome.READY:
            return None
        case Outcome.NOT_READY:
            return VerificationFailed(
                f"{said}; a rollback from version {drilled.home} to {drilled.away} is not ready",
                remedy=f"see `release verify {drilled.model}` and the log of the server",
            )
        case Outcome.OVERTAKEN | Outcome.CUT_OFF:
            return Refused(said, remedy=f"look at `release status {drilled.model}`, then drill again")


def _names(row: LedgerRow) -> Callable[[Heard], bool]:
    """Returns whether an answer is of a move, or of a later one: then it is waited for no more."""

    def names(heard: Heard) -> bool:
        version, epoch = heard.named
        return (version, epoch) == (row.version, str(row.epoch)) or (epoch.isdecimal() and int(epoch) > row.epoch)

    return names


def _put(rows: Iterable[LedgerRow], version: str) -> LedgerRow:
    """Returns the last row that put a version into Production."""
    return [row for row in rows if moves_production(row) and row.version == version][-1]


def _times(answers: Sequence[Answer], there: LedgerRow, back: LedgerRow) -> list[float | None]:
    gone, returned = (datetime.fromisoformat(row.at) for row in (there, back))
    out = [answer for answer in answers if gone <= answer.at < returned]
    home = [answer for answer in answers if answer.at >= returned]
    return [swap_ms(out, there.version, there.epoch, gone), swap_ms(home, back.version, back.epoch, returned)]
