"""What must hold of the ledger rows that give a version a share of the traffic beside Production."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from release_platform.domain.assessed import Kept
from release_platform.domain.freeze import FreezeWindow
from release_platform.domain.gates import Verdict
from release_platform.domain.invariants import violations
from release_platform.domain.ledger import LedgerRow, fold, genesis, rollout_move_id, sealed
from release_platform.domain.lifecycle import Head, Move, advance
from release_platform.domain.observation import Observation, StoreView
from release_platform.domain.policy import Approval, PromotionRequest, RequestState, binding
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.replay_spec import ReplaySpec
from tests.unit.test_policy import NOW, REGISTRATION, REQUEST, gate
from tests.unit.test_replay import replay, side

POLICY = PolicySpec(approvals=1, approvals_expire_s=60)
FIRST = replace(REGISTRATION, version="1", baseline=None)
REQUESTS = tuple(
    replace(REQUEST, request_id=f"q{version}", version=version, state=state)
    for version, state in (("1", RequestState.PROMOTED), ("2", RequestState.OPEN))
)
APPROVALS = tuple(
    Approval(request_id=f"q{of.version}", actor="grace", binding=binding(of, POLICY), reason="", approved_at=NOW)
    for of in (FIRST, REGISTRATION)
)


@dataclass(frozen=True, kw_only=True)
class Moved:
    """One row to be made: what moves, by which request, and how many seconds after the start."""

    move: Move
    version: str
    request_id: str
    weight: float | None = None
    at_s: float = 0
    actor: str = "ada"
    evidence: str = ""


SERVED = (
    Moved(move=Move.STAGED, version="1", request_id="s1"),
    Moved(move=Move.PROMOTED, version="1", request_id="q1", evidence=binding(FIRST, POLICY)),
    Moved(move=Move.STAGED, version="2", request_id="s2"),
)
BOUND = binding(REGISTRATION, POLICY)
DECIDED = {"format": 2, "decided_by": "judge", "verdict": "failed", "actor": "rollout", "reason": "why"}


def share(weight: float, step: int, **changes: Any) -> Moved:
    named = {"version": "2", "request_id": rollout_move_id("q2", f"canary-{step}"), "evidence": BOUND}
    return Moved(**{"move": Move.CANARY_SET, "weight": weight, **named, **changes})


def ledger(*moves: Moved) -> tuple[LedgerRow, ...]:
    head, rows = Head(model="m"), list[LedgerRow]()
    for moved in moves:
        after = advance(head, moved.move, moved.version, moved.weight)
        row = LedgerRow(
            model="m",
            epoch=after.epoch,
            move=moved.move,
            version=moved.version,
            weight=moved.weight,
            actor=moved.actor,
            reason="why",
            request_id=moved.request_id,
            evidence=moved.evidence,
            digest="sha256:d",
            before=head.to_json(),
            after=after.to_json(),
            at=(NOW + timedelta(seconds=moved.at_s)).isoformat(),
            previous_hash=rows[-1].hash if rows else genesis("m"),
        )
        rows.append(sealed(row))
        head = after
    return tuple(rows)


def found(*moves: Moved, policy: PolicySpec = POLICY, **changes: Any) -> list[str]:
    rows = ledger(*moves)
    view = StoreView(
        **{
            "head": fold("m", rows),
            "projected_epoch": len(rows),
            "rows": rows,
            "registrations": (FIRST, REGISTRATION),
            "removed": frozenset(),
            "requests": REQUESTS,
            "approvals": APPROVALS,
            "policies": {policy.digest: policy.terms},
            "tracked": {},
            **changes,
        }
    )
    return [finding.sentence for finding in violations(Observation(model="m", store=view))]


def test_a_canary_of_an_approved_version_is_in_order() -> None:
    assert found(*SERVED, share(0.1, 0)) == []
    assert found(*SERVED, share(1.0, 0, move=Move.SHADOW_SET), share(0.1, 1)) == []


def test_a_rollout_is_decided_at_its_beginning() -> None:
    shares = (share(0.1, 0, at_s=60), share(0.5, 1, at_s=600))  # the approval has expired meanwhile
    promoted = Moved(move=Move.PROMOTED, version="2", request_id="q2", at_s=999, evidence=BOUND)
    requests = (REQUESTS[0], replace(REQUESTS[1], state=RequestState.PROMOTED))
    assert found(*SERVED, *shares, promoted, requests=requests) == []
    assert found(*SERVED, share(0.1, 0, at_s=61)) == [
        "m, ledger row 4: gives traffic to version 2 too early: 1 of 1 approval(s) by others than ada are missing: "
        "`release approve q2`; grace's approval expired 2026-01-02 00:01:00+00:00"
    ]


def test_what_was_taken_away_needs_a_decision_again() -> None:
    moves = (*SERVED, share(0.1, 0), share(0.0, 1, evidence=""), share(0.1, 2, at_s=600))
    (said,) = found(*moves)
    assert said.startswith("m, ledger row 6: gives traffic to version 2 too early")


def test_a_rollout_goes_no_further_in_a_freeze() -> None:
    freeze = FreezeWindow(from_=_text(30), until=_text(90), reason="year-end closing")
    policy = PolicySpec(freeze=(freeze,))
    evidence = binding(REGISTRATION, policy)
    first = replace(SERVED[1], evidence=binding(FIRST, policy))
    moves = (SERVED[0], first, SERVED[2], share(0.1, 0, evidence=evidence))
    (said,) = found(*moves, share(0.5, 1, at_s=60, evidence=evidence), policy=policy)
    assert "ledger row 5: gives traffic to version 2 too early" in said
    assert "year-end closing" in said
    assert found(*moves, share(0.5, 1, at_s=90, evidence=evidence), policy=policy) == []
    assert found(*moves, share(0.0, 1, at_s=60, evidence=""), policy=policy) == []


def _text(seconds: int) -> str:
    moment: datetime = NOW + timedelta(seconds=seconds)
    return moment.isoformat()


@pytest.mark.parametrize(
    ("moves", "changes", "said"),
    [
        ((*SERVED[:2], share(0.1, 0)), {}, "gives traffic to version 2, which was not in Staging before"),
        (
            (*SERVED, share(0.1, 0)),
            {"registrations": (FIRST, replace(REGISTRATION, gates=(gate(Verdict.FAILED),)))},
            "gives traffic to version 2, whose gate(s) auc did not pass",
        ),
        ((*SERVED, share(0.1, 0, request_id="nobody")), {}, "gives traffic to version 2 without a request"),
        ((*SERVED, share(0.1, 0, actor="mallory")), {}, "names mallory, but ada asked for it"),
        (
            (*SERVED, share(0.1, 0, request_id=rollout_move_id("q1", "canary-0"))),
            {},
            "gives traffic to version 2 by request q1, which asks for version 1",
        ),
        ((*SERVED, share(0.1, 0, evidence="sha256:x")), {}, "its evidence is of no policy that the store knows"),
        ((*SERVED, share(0.1, 0)), {"approvals": APPROVALS[:1]}, "1 of 1 approval(s) by others than ada are missing"),
    ],
)
def test_traffic_without_what_a_promotion_needs_is_found(
    moves: Sequence[Moved], changes: dict[str, Any], said: str
) -> None:
    assert any(said in sentence for sentence in found(*moves, **changes))


def test_taking_a_share_away_needs_nobody() -> None:
    by_judge = share(0.0, 1, actor="rollout", evidence="sha256:a")
    closed: PromotionRequest = replace(REQUESTS[1], state=RequestState.REFUSED)
    kept = {"sha256:a": Kept(value=DECIDED)}
    assert found(*SERVED, share(0.1, 0), by_judge, requests=(REQUESTS[0], closed), assessments=kept) == []


@pytest.mark.parametrize(
    ("row", "kept", "said"),
    [
        ({"evidence": ""}, None, "names nothing that rollout decided on"),
        ({"evidence": "", "actor": "grace"}, None, "names nothing that grace decided on"),
        ({}, None, "what it was decided on (sha256:a) is not there any more"),
        ({}, Kept(problem="was changed"), "what it was decided on (sha256:a) was changed"),
        ({}, Kept(value=DECIDED), None),
        ({}, Kept(value=DECIDED | {"verdict": "passed"}), "its evidence (sha256:a) found passed, not failed"),
        ({}, Kept(value=DECIDED | {"verdict": None}), "found None, not failed"),
        ({}, Kept(value=DECIDED | {"reason": "another"}), "its evidence (sha256:a) is of something else: another"),
        ({}, Kept(value=DECIDED | {"actor": "grace"}), "is of something else"),
        ({}, Kept(value=DECIDED | {"decided_by": "time", "verdict": "inconclusive"}), None),
        ({"actor": "grace"}, Kept(value=DECIDED | {"decided_by": "order", "actor": "grace", "verdict": None}), None),
        ({}, Kept(value={"format": 1, "reason": "it was kept before there were verdicts"}), None),
        ({}, Kept(value={"format": 3}), "cannot be read"),
    ],
)
def test_what_takes_a_share_away_says_what_it_was_decided_on(
    row: dict[str, Any], kept: Kept | None, said: str | None
) -> None:
    of = {"actor": "rollout", "evidence": "sha256:a", "request_id": rollout_move_id("q2", "canary-off"), **row}
    assessments = {} if kept is None else {"sha256:a": kept}
    seen = found(*SERVED, share(0.1, 0), share(0.0, 1, **of), assessments=assessments)
    assert len(seen) == (said is not None)
    assert all("ledger row 5: " in one and str(said) in one for one in seen)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (DECIDED | {"decided_by": "policy", "actor": "rollback_policy"}, None),
        (DECIDED | {"decided_by": "policy", "actor": "rollback_policy", "verdict": "inconclusive"}, "not failed"),
        (DECIDED | {"decided_by": "order", "actor": "rollback_policy"}, "says that order decided"),
        (None, "is not there any more"),
    ],
)
def test_what_brings_a_version_back_by_policy_says_so_too(kept: dict[str, Any] | None, said: str | None) -> None:
    promoted = Moved(move=Move.PROMOTED, version="2", request_id="q2", evidence=BOUND)
    back = {"version": "1", "request_id": "p", "actor": "rollback_policy", "evidence": "sha256:a"}
    requests = (REQUESTS[0], replace(REQUESTS[1], state=RequestState.PROMOTED))
    moves = (*SERVED, promoted, Moved(move=Move.ROLLED_BACK, **back))
    assessments = {} if kept is None else {"sha256:a": Kept(value=kept)}
    seen = found(*moves, requests=requests, assessments=assessments)
    assert len(seen) == (said is not None)
    assert all(str(said) in one for one in seen)


def test_a_shadow_that_gives_way_to_the_canary_was_decided_by_nobody() -> None:
    moves = (share(1.0, 0, move=Move.SHADOW_SET), share(0.1, 1))
    off = share(0.0, 2, move=Move.SHADOW_SET, actor="rollout", evidence="")
    assert found(*SERVED, *moves, off) == []


def test_a_demanded_replay_counts_that_was_made_until_the_decision() -> None:
    policy = PolicySpec(replay=ReplaySpec())
    first = replace(SERVED[1], evidence=binding(FIRST, policy))
    moves = (SERVED[0], first, SERVED[2], share(0.1, 0, at_s=60, evidence=binding(REGISTRATION, policy)))
    candidate = replace(side("2"), digest=REGISTRATION.digest)
    good = replace(replay(), candidate=candidate, at=_text(30))
    assert found(*moves, policy=policy, replays=(good,)) == []
    later = replace(replay(flips=200), candidate=candidate, at=_text(90))
    assert found(*moves, policy=policy, replays=(good, later)) == []
    for made, why in (((), "it was not replayed"), ((replace(good, at=_text(90)),), "it was not replayed")):
        (said,) = found(*moves, policy=policy, replays=made)
        assert f"gives traffic to version 2 too early: {why}" in said
    (said,) = found(*moves, policy=policy, replays=(replace(later, at=_text(30)),))
    assert "too early: replay_flips failed" in said
