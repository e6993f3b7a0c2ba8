"""The small model of a release, walked whole: every state that moves and policy can reach, the invariants in each.

Four versions: 1, 2 and 3 are good, 4 failed its gate. Events: one comes to Staging, is approved, is promoted if the
policy says so, or is brought back. The only bound is the depth of the stack of former versions, which no rule looks at.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from release_platform.domain.errors import Refused
from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.ledger import LedgerRow, faults, fold, genesis, sealed, standing
from release_platform.domain.lifecycle import Alias, Head, Move, advance, rollback_target
from release_platform.domain.policy import (
    Approval,
    Facts,
    PromotionRequest,
    Ready,
    Registration,
    binding,
    decide,
)
from release_platform.domain.policy_spec import PolicySpec
from tests.unit.test_policy import REGISTRATION, gate

MODEL = "m"
DEEPEST = 4
NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = PolicySpec(approvals=1, current_baseline=False)
GATES: dict[str, GateResult] = {
    "1": gate(Verdict.PASSED),
    "2": gate(Verdict.PASSED),
    "3": gate(Verdict.PASSED),
    "4": gate(Verdict.FAILED),
}
VERSIONS = {
    version: replace(REGISTRATION, model=MODEL, version=version, digest=f"sha256:{version}", gates=(result,))
    for version, result in GATES.items()
}
BINDINGS = {version: binding(registration, POLICY) for version, registration in VERSIONS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What can be told apart: where versions stand, which came to Staging, which were approved."""

    head: Head
    staged: frozenset[str] = frozenset()
    approved: frozenset[str] = frozenset()


START = State(head=Head(model=MODEL))
Event = tuple[Move, str, float | None]
WEIGHT = 0.5
"""One share stands for all: `advance` only asks whether it is the present one."""
MOVES = tuple(move for move in Move if move is not Move.SHADOW_SET)
"""A shadow follows the rules of a canary; `test_lifecycle` walks both."""
History = tuple[LedgerRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What a walk saw."""

    histories: dict[State, History]
    n_transitions: int
    n_refused: int
    n_beyond: int


def walk() -> Walk:
    histories: dict[State, History] = {START: ()}
    waiting = deque([START])
    n_transitions = n_refused = n_beyond = 0
    while waiting:
        state = waiting.popleft()
        for event, after in steps(state):
            if after is None:
                n_refused += 1
                continue
            n_transitions += 1
            if event is not None:
                check_transition(state.head, event, after.head)
            if len(after.head.previous) > DEEPEST:
                n_beyond += 1
            elif after not in histories:
                history = histories[state]
                histories[after] = history if event is None else (*history, row_of(state.head, event, history))
                waiting.append(after)
    return Walk(histories=histories, n_transitions=n_transitions, n_refused=n_refused, n_beyond=n_beyond)


def steps(state: State) -> Iterator[tuple[Event | None, State | None]]:
    """Yields each event (None: an approval, which is no move) and the state after it, None where it is refused."""
    for version in VERSIONS:
        yield None, replace(state, approved=state.approved | {version})
        for move in MOVES:
            for weight in (0.0, WEIGHT) if move.weighted else (None,):
                yield (move, version, weight), moved(state, (move, version, weight))


def moved(state: State, event: Event) -> State | None:
    move, version, weight = event
    if move.forward(weight) and not isinstance(decision(state, version), Ready):
        return None
    try:
        head = advance(state.head, *event)
    except Refused:
        return None
    staged = state.staged | {version} if move is Move.STAGED else state.staged
    return replace(state, head=without_epoch(head), staged=staged)


def decision(state: State, version: str) -> object:
    registration: Registration = VERSIONS[version]
    request = PromotionRequest(
        request_id="q", model=MODEL, version=version, actor="ada", reason="why", requested_at=NOW
    )
    given = Approval(request_id="q", actor="grace", binding=BINDINGS[version], reason="", approved_at=NOW)
    facts = Facts(
        request=request,
        policy=POLICY,
        head=state.head,
        registration=registration,
        registry_digest=registration.digest,
        staged_at=NOW if version in state.staged else None,
        approvals=[given] if version in state.approved else [replace(given, actor="ada")],
        now=NOW,
    )
    return decide(facts)


def without_epoch(head: Head) -> Head:
    return replace(head, epoch=0)  # it only counts: no rule of `advance` or `decide` reads it


def row_of(head: Head, event: Event, history: History) -> LedgerRow:
    move, version, weight = event
    before = replace(head, epoch=len(history))
    row = LedgerRow(
        model=MODEL,
        epoch=len(history) + 1,
        move=move,
        version=version,
        actor="ada",
        reason="why",
        request_id=f"q{len(history)}",
        evidence="",
        digest=VERSIONS[version].digest,
        before=before.to_json(),
        after=advance(before, *event).to_json(),
        at=NOW.isoformat(),
        previous_hash=history[-1].hash if history else genesis(MODEL),
        weight=weight,
    )
    return sealed(row)


def check_transition(old: Head, event: Event, new: Head) -> None:
    move, version, _ = event
    assert advance(old, *event).epoch == old.epoch + 1
    assert old.ever == new.ever[: len(old.ever)], "what was in Production is forgotten"
    if move is Move.STAGED:
        assert (new.production, new.previous, new.ever) == (old.production, old.previous, old.ever)
    if move is Move.PROMOTED and old.production is not None:
        assert new.previous == (*old.previous, old.production), "a promotion loses the version that it replaces"
    if move is Move.ROLLED_BACK:
        assert version in old.ever, "a rollback brought something new"


def check_state(state: State, history: History) -> None:
    head = state.head
    for version in filter(None, (head.production, *head.previous, *head.ever, *head.beside)):
        assert version in state.staged, "it had traffic and never was in Staging"
        assert version in state.approved, "it had traffic and nobody else approved it"
        assert VERSIONS[version].gates[0].passed, "it had traffic and failed its gate"
    assert head.production is None or head.production in head.ever
    assert set(head.previous) <= set(head.ever)
    assert len(set(head.ever)) == len(head.ever)
    assert {v for v in head.aliases.values() if v} <= head.reachable
    assert faults(MODEL, history) == ()
    assert without_epoch(fold(MODEL, history)) == head
    shown = {alias: version for alias, version in head.aliases.items() if alias is not Alias.PREVIOUS and version}
    assert len(standing(history)) == len(shown), "a version stands somewhere, and no row says since when"
    if len(head.ever) > 1:
        assert any(can_go_back(head, version) for version in head.ever), "there is no way back"
    if head.previous:
        assert can_go_back(head, rollback_target(head)), "the plain rollback is refused"


def can_go_back(head: Head, version: str) -> bool:
    try:
        return advance(head, Move.ROLLED_BACK, version).production == version
    except Refused:
        return False


@pytest.fixture(scope="module")
def seen() -> Walk:
    return walk()


def test_every_reachable_state_keeps_the_invariants(seen: Walk) -> None:
    for state, history in seen.histories.items():
        check_state(state, history)
    figures = (
        f"{len(seen.histories):,} states, {seen.n_transitions:,} transitions, {seen.n_refused:,} refusals, "
        f"{seen.n_beyond:,} transitions to stacks deeper than {DEEPEST}"
    )
    print(f"\nthe small model, walked whole: {figures}; 0 violations")


def test_the_walk_reaches_what_it_is_about(seen: Walk) -> None:
    heads = {state.head for state in seen.histories}
    assert {head.production for head in heads} == {None, "1", "2", "3"}
    assert {head.staging for head in heads} == {None, "1", "2", "3", "4"}
    assert {len(head.beside) for head in heads} == {0, 1}
    assert {len(head.previous) for head in heads} == set(range(DEEPEST + 1))
    assert {row.move for history in seen.histories.values() for row in history} == set(MOVES)


def test_the_walk_would_see_a_version_that_nobody_approved(seen: Walk) -> None:
    state, history = next((s, h) for s, h in seen.histories.items() if s.head.production == "1")
    with pytest.raises(AssertionError, match="nobody else approved it"):
        check_state(replace(state, approved=frozenset()), history)
