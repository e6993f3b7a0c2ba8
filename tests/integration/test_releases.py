"""Releases over a real store and real packages: what is signed, what a cut-off registry delays, what keys are for."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from release_platform.adapters.projection_store import PATIENCE
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder, key_id
from release_platform.adapters.trust import Trust, bundles_in, certified, proof_of
from release_platform.audit import observe
from release_platform.domain.attestation import SIGNATURE_TAG, Certificate
from release_platform.domain.errors import IntegrityError, Refused, StaleEpoch, Unavailable
from release_platform.domain.invariants import LINEAGE, violations
from release_platform.domain.ledger import certificate_of, certified_faults, faults, last_moves, sealed
from release_platform.domain.lifecycle import Move
from release_platform.domain.policy import RequestState
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.ports import VersionRecord
from release_platform.projection import Projection
from release_platform.releases import Releases
from tests.fakes.clock import FakeClock
from tests.fakes.packages import build_linear_classifier
from tests.fakes.registry import FakeRegistry
from tests.unit.test_policy import REGISTRATION

MODEL = "cancer"
FREE = PolicySpec(current_baseline=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    return {(MODEL, str(n)): build_linear_classifier(root / str(n), n_rows=300 + n) for n in (1, 2, 3)}


@pytest.fixture
def registry(folders: dict[tuple[str, str], Path]) -> FakeRegistry:
    return FakeRegistry(folders, signs=False)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


@pytest.fixture
def releases(registry: FakeRegistry, keys: KeyFolder, tmp_path: Path) -> Iterator[Releases]:
    store = ReleaseStore(f"sqlite:///{tmp_path / 'release.db'}")
    yield Releases(store, registry, keys)
    store.close()


def stage(releases: Releases, version: str) -> None:
    record = releases.registry.get_version(MODEL, version)
    registration = replace(
        REGISTRATION, model=MODEL, version=version, digest=record.digest, registered_at=datetime.now(UTC)
    )
    recorded = releases.record(record, registration, {"commit": "c"})
    releases.stage(recorded, actor="ada", reason="gates passed", key=f"sha256:{version}")


def promote(releases: Releases, version: str) -> None:
    stage(releases, version)
    releases.request(MODEL, version=version, actor="ada", reason="better", request_id=f"q{version}")
    releases.promote(f"q{version}", FREE)


def proven(releases: Releases, keys: KeyFolder, version: str, alias: str = "production") -> int:
    record = releases.registry.get_version(MODEL, version)
    trust = Trust.in_folder(keys.folder)
    proof = proof_of(record, alias)
    return trust.authorise(proof, record.manifest, model=MODEL, version=version, alias=alias).epoch


def test_every_move_is_certified_for_its_epoch(releases: Releases, keys: KeyFolder) -> None:
    stage(releases, "1")
    assert proven(releases, keys, "1", "staging") == 1
    promote(releases, "1")
    assert proven(releases, keys, "1") == 2
    assert faults(MODEL, releases.store.ledger(MODEL)) == ()


def test_a_rollback_certifies_the_old_version_for_a_new_epoch(releases: Releases, keys: KeyFolder) -> None:
    promote(releases, "1")
    promote(releases, "2")
    row = releases.rollback(MODEL, to=None, actor="ada", reason="errors")
    assert (row.version, row.epoch) == ("1", 5)
    assert proven(releases, keys, "1") == 5
    assert releases.projection.deviations(MODEL) == ()


def test_a_rollback_that_is_repeated_with_its_id_goes_back_once(releases: Releases) -> None:
    for version in ("1", "2", "3"):
        promote(releases, version)
    first = releases.rollback(MODEL, to=None, actor="ada", reason="errors", request_id="back")
    assert releases.rollback(MODEL, to=None, actor="ada", reason="errors", request_id="back") == first
    assert releases.store.head(MODEL).production == "2"


def test_a_rollback_commits_while_the_registry_is_down_and_the_aliases_follow(
    releases: Releases, registry: FakeRegistry, keys: KeyFolder
) -> None:
    promote(releases, "1")
    promote(releases, "2")
    registry.down = True
    releases.rollback(MODEL, to=None, actor="ada", reason="errors")
    assert releases.store.head(MODEL).production == "1"
    registry.down = False
    assert registry.find_alias(MODEL, "production") == "2"
    assert releases.projection.reconcile(MODEL, undo=True) == ()  # finishing a move is no fault
    assert registry.find_alias(MODEL, "production") == "1"
    assert proven(releases, keys, "1") == 5


def test_a_rollback_moves_production_although_the_version_in_staging_was_deleted(
    releases: Releases, registry: FakeRegistry, keys: KeyFolder
) -> None:
    promote(releases, "1")
    promote(releases, "2")
    stage(releases, "3")
    registry.delete(MODEL, "3")
    releases.rollback(MODEL, to=None, actor="ada", reason="errors")
    assert registry.find_alias(MODEL, "production") == "1"
    assert proven(releases, keys, "1") == 6
    found = releases.projection.reconcile(MODEL, undo=True)
    assert any("version 3 was deleted" in fault for fault in found)
    assert any("alias staging cannot be moved" in fault for fault in found)


@pytest.mark.parametrize("actor", ["", "  ", "Ada", " ada "])
def test_nobody_and_the_requester_in_other_letters_do_not_approve(releases: Releases, actor: str) -> None:
    stage(releases, "1")
    releases.request(MODEL, version="1", actor="ada", reason="better", request_id="q")
    with pytest.raises(Refused):
        releases.approve("q", actor=actor, reason="", policy=PolicySpec(approvals=1))


def test_asking_again_carries_on_with_ones_own_open_request(releases: Releases) -> None:
    stage(releases, "1")
    first = releases.request(MODEL, version=None, actor="ada", reason="better")
    assert releases.request(MODEL, version=None, actor="ada", reason="still better") == first
    assert releases.request(MODEL, version=None, actor="grace", reason="better") != first


def test_a_version_without_a_valid_signature_is_not_promoted(releases: Releases, registry: FakeRegistry) -> None:
    stage(releases, "1")
    registry.set_tag(MODEL, "1", SIGNATURE_TAG, "{}")
    releases.request(MODEL, version="1", actor="ada", reason="better", request_id="q")
    with pytest.raises(IntegrityError):
        releases.promote("q", FREE)
    assert releases.store.head(MODEL).production is None
    assert releases.store.get_request("q").state is RequestState.OPEN


def test_a_version_with_the_signature_of_another_is_not_promoted(releases: Releases, registry: FakeRegistry) -> None:
    stage(releases, "1")
    stage(releases, "2")
    registry.set_tag(MODEL, "2", SIGNATURE_TAG, registry.get_version(MODEL, "1").tags[SIGNATURE_TAG])
    releases.request(MODEL, version="2", actor="ada", reason="better", request_id="q")
    with pytest.raises(IntegrityError, match="not of cancer version 2"):
        releases.promote("q", FREE)
    assert releases.store.head(MODEL).production is None


def test_a_version_whose_files_were_changed_is_not_promoted(
    releases: Releases, registry: FakeRegistry, folders: dict[tuple[str, str], Path]
) -> None:
    stage(releases, "1")
    releases.request(MODEL, version="1", actor="ada", reason="better", request_id="q")
    file = folders[MODEL, "1"] / "golden.json"
    right = file.read_bytes()
    file.write_bytes(right[:-1] + b"]")
    with pytest.raises(IntegrityError, match=r"golden\.json was changed"):
        releases.promote("q", FREE)
    file.write_bytes(right)
    assert releases.store.head(MODEL).production is None


def test_a_version_that_never_was_in_staging_is_not_promoted(releases: Releases, registry: FakeRegistry) -> None:
    record = registry.get_version(MODEL, "1")
    releases.record(record, replace(REGISTRATION, model=MODEL, version="1", digest=record.digest), {"commit": "c"})
    releases.request(MODEL, version="1", actor="ada", reason="better", request_id="q")
    with pytest.raises(Refused, match="never was in Staging"):
        releases.promote("q", FREE)
    assert releases.store.head(MODEL).production is None


def test_promoting_past_what_is_missing_is_refused(releases: Releases) -> None:
    stage(releases, "1")
    releases.request(MODEL, version="1", actor="ada", reason="better", request_id="q")
    with pytest.raises(Refused, match=r"1 of 1 approval\(s\) by others than ada are missing"):
        releases.promote("q", replace(FREE, approvals=1))
    assert releases.store.head(MODEL).production is None
    assert releases.store.get_request("q").state is RequestState.OPEN


def test_a_promotion_that_was_decided_before_another_one_is_told_so(
    releases: Releases, registry: FakeRegistry, keys: KeyFolder
) -> None:
    stage(releases, "1")
    stage(releases, "2")
    for version in ("1", "2"):
        releases.request(MODEL, version=version, actor="ada", reason="better", request_id=f"q{version}")

    class Slow(FakeRegistry):
        """Lets another promotion through while it fetches a version."""

        def fetch(self, model: str, version: str, folder: Path) -> VersionRecord:
            releases.promote("q2", FREE)
            return super().fetch(model, version, folder)

    slow = Slow({})
    slow.__dict__ = registry.__dict__  # the same registry, seen by a slower process
    with pytest.raises(StaleEpoch, match="expected epoch 2, but the head is at epoch 3"):
        Releases(releases.store, slow, keys).promote("q1", FREE)
    assert releases.store.head(MODEL).production == "2"


def test_an_alias_never_moves_before_its_certificate_is_there(
    releases: Releases, registry: FakeRegistry, keys: KeyFolder
) -> None:
    promote(releases, "1")
    stage(releases, "2")
    releases.request(MODEL, version="2", actor="ada", reason="better", request_id="q2")

    class Refusing(FakeRegistry):
        """Goes down as soon as a certificate is to be written."""

        def set_tag(self, model: str, version: str, name: str, value: str) -> None:
            raise Unavailable("the registry does not answer", remedy="start it")

    refusing = Refusing({})
    refusing.__dict__ = registry.__dict__
    with pytest.raises(Unavailable):
        Releases(releases.store, refusing, keys).promote("q2", FREE)
    assert releases.store.head(MODEL).production == "2"  # committed
    assert registry.find_alias(MODEL, "production") == "1"
    open_still = releases.store.get_request("q2")
    assert open_still.state is RequestState.OPEN
    assert releases.missing(releases.facts(open_still, FREE)) == ()  # and not "already is in Production"


def test_a_rollback_to_a_version_that_the_registry_lost_says_so(releases: Releases, registry: FakeRegistry) -> None:
    promote(releases, "1")
    promote(releases, "2")
    registry.delete(MODEL, "1")
    said: list[str] = []
    releases.rollback(MODEL, to=None, actor="ada", reason="errors", tell=said.append)
    assert said == [f"{MODEL}: alias production cannot be moved: the registry has no version 1"]
    assert releases.store.head(MODEL).production == "1"


def test_an_edited_certificate_is_signed_again(releases: Releases, registry: FakeRegistry, keys: KeyFolder) -> None:
    promote(releases, "1")
    registry.set_tag(MODEL, "1", "release.certificate.production", "{}")
    found = releases.projection.reconcile(MODEL, undo=True)
    assert found == (f"{MODEL}: the certificate of version 1 for its move to production is absent or wrong",)
    assert proven(releases, keys, "1") == 2


@pytest.mark.parametrize(("alias", "epoch"), [("staging", 1), ("production", 2)])
@pytest.mark.parametrize("change", ["edited", "removed"])
def test_the_certificate_of_a_move_that_is_past_is_kept_too(
    releases: Releases, registry: FakeRegistry, keys: KeyFolder, alias: str, epoch: int, change: str
) -> None:
    promote(releases, "1")
    promote(releases, "2")
    tag = f"release.certificate.{alias}"
    proof = registry.shown(MODEL).tags["1"][tag]
    if change == "edited":
        registry.set_tag(MODEL, "1", tag, "{}")
    else:
        registry.remove_tag_behind_the_back(MODEL, "1", tag)
    found = releases.projection.reconcile(MODEL, undo=True)
    assert found == (f"{MODEL}: the certificate of version 1 for its move to {alias} is absent or wrong",)
    kept = [keys.trusted().verify(text) for text in (proof, registry.shown(MODEL).tags["1"][tag])]
    assert Certificate.from_statement(kept[0]) == Certificate.from_statement(kept[1])
    assert Certificate.from_statement(kept[1]).epoch == epoch


def test_a_certificate_of_a_row_that_the_ledger_lost_is_never_written_over(
    releases: Releases, registry: FakeRegistry, keys: KeyFolder
) -> None:
    promote(releases, "1")
    (row,) = [row for row in last_moves(releases.store.ledger(MODEL)) if row.epoch == 2]
    lost = keys.signer().sign(replace(certificate_of(row), epoch=3).to_statement())
    registry.set_tag(MODEL, "1", "release.certificate.production", lost)
    found = releases.projection.reconcile(MODEL, undo=True)
    assert found[0] == f"{MODEL}: the certificate of version 1 for its move to production is absent or wrong"
    assert "has the certificate of epoch 3, but its last move in the ledger is of epoch 2" in found[1]
    assert registry.shown(MODEL).tags["1"]["release.certificate.production"] == lost


@pytest.mark.parametrize("tag", ["release.digest", "release.manifest", SIGNATURE_TAG])
def test_an_edited_tag_is_named_and_put_back(releases: Releases, registry: FakeRegistry, tag: str) -> None:
    promote(releases, "1")
    registry.set_tag(MODEL, "1", tag, "forged")
    assert releases.projection.reconcile(MODEL, undo=True) == (f"{MODEL}: tag {tag} of version 1 was edited",)
    assert releases.projection.deviations(MODEL) == ()


def test_an_alias_moved_behind_the_back_is_named_and_moved_back(releases: Releases, registry: FakeRegistry) -> None:
    promote(releases, "1")
    promote(releases, "2")
    registry.move_behind_the_back(MODEL, "production", "1")
    found = releases.projection.reconcile(MODEL, undo=True)
    assert found == (f"{MODEL}: alias production is version 1, the head says version 2",)
    assert registry.find_alias(MODEL, "production") == "2"


def test_what_the_policy_only_reports_stays_as_it_is(releases: Releases, registry: FakeRegistry) -> None:
    promote(releases, "1")
    promote(releases, "2")
    registry.move_behind_the_back(MODEL, "production", "1")
    registry.set_tag(MODEL, "2", SIGNATURE_TAG, "forged")
    found = releases.projection.reconcile(MODEL, undo=False)
    assert [line.endswith("it stays so, as the policy says") for line in found] == [True, True]
    assert registry.find_alias(MODEL, "production") == "1"


def test_a_deleted_version_is_named(releases: Releases, registry: FakeRegistry) -> None:
    promote(releases, "1")
    promote(releases, "2")
    registry.delete(MODEL, "1")
    found = releases.projection.reconcile(MODEL, undo=True)
    assert f"{MODEL}: version 1 was deleted from the registry" in found


def test_a_slow_projection_of_an_older_head_does_not_win(releases: Releases, registry: FakeRegistry) -> None:
    promote(releases, "1")
    stage(releases, "2")
    releases.request(MODEL, version="2", actor="ada", reason="better", request_id="q2")

    class Slow(FakeRegistry):
        """Lets another promotion through before it moves the alias for the first time."""

        waiting = True

        def set_alias(self, model: str, alias: str, version: str | None) -> None:
            if self.waiting and alias == "production":
                Slow.waiting = False
                releases.promote("q2", FREE)
            super().set_alias(model, alias, version)

    slow = Slow({})
    slow.__dict__ = registry.__dict__  # the same registry, seen by a slower process
    registry.set_alias(MODEL, "production", None)
    assert Projection(releases.store, slow, KeyFolder(releases.keys.folder)).project(MODEL) == ()
    assert registry.find_alias(MODEL, "production") == "2"
    assert releases.projection.deviations(MODEL) == ()


def test_what_a_projection_left_that_died_is_put_right_and_not_named_also_where_changes_are_only_reported(
    registry: FakeRegistry, keys: KeyFolder, tmp_path: Path
) -> None:
    clock = FakeClock(datetime(2026, 11, 1, tzinfo=UTC))
    store = ReleaseStore(f"sqlite:///{tmp_path / 'release.db'}", clock)
    releases = Releases(store, registry, keys)
    promote(releases, "1")
    promote(releases, "2")
    store.projections.begin(MODEL)
    registry.move_behind_the_back(MODEL, "production", "1")
    assert releases.projection.reconcile(MODEL, undo=False) == ()
    assert registry.find_alias(MODEL, "production") == "2"

    clock.pass_s(PATIENCE.total_seconds() + 1)
    registry.move_behind_the_back(MODEL, "production", "1")
    assert releases.projection.reconcile(MODEL, undo=False) == ()  # it may have been written just before
    assert not store.projections.under_way(MODEL)
    registry.move_behind_the_back(MODEL, "production", "1")
    (said,) = releases.projection.reconcile(MODEL, undo=False)
    assert "alias production" in said
    store.close()


def test_a_projection_that_ended_is_under_way_no_more(releases: Releases, registry: FakeRegistry) -> None:
    promote(releases, "1")
    assert not releases.store.projections.under_way(MODEL)
    registry.down = True
    with pytest.raises(Unavailable):
        releases.projection.project(MODEL)
    assert releases.store.projections.under_way(MODEL)
    assert not releases.store.projections.under_way("other")


def test_a_distrusted_key_takes_nothing_down_that_is_needed(releases: Releases, keys: KeyFolder) -> None:
    promote(releases, "1")
    promote(releases, "2")
    old = key_id(keys.signer().public_key)
    keys.rotate()
    releases.distrust_key(old, [MODEL])
    assert old not in keys.trusted().ids
    assert proven(releases, keys, "2") == 4
    releases.rollback(MODEL, to="1", actor="ada", reason="errors")
    assert proven(releases, keys, "1") == 5


def test_a_key_is_kept_while_something_needed_cannot_be_verified(
    releases: Releases, registry: FakeRegistry, keys: KeyFolder
) -> None:
    promote(releases, "1")
    old = key_id(keys.signer().public_key)
    keys.rotate()
    registry.set_tag(MODEL, "1", SIGNATURE_TAG, "{}")
    with pytest.raises(IntegrityError):
        releases.distrust_key(old, [MODEL])
    assert old in keys.trusted().ids


def test_a_promotion_needs_a_name_and_a_reason(releases: Releases) -> None:
    stage(releases, "1")
    with pytest.raises(Refused, match="needs an actor and a reason"):
        releases.request(MODEL, version=None, actor="ada", reason=" ")


def test_no_invariant_is_broken_by_any_way_of_moving(releases: Releases, registry: FakeRegistry) -> None:
    for version in ("1", "2", "3"):
        promote(releases, version)
    releases.rollback(MODEL, to="1", actor="ada", reason="errors")
    releases.rollback(MODEL, to="3", actor="ada", reason="it was not the model")
    assert violations(observe(releases, MODEL)) == ()


def test_what_was_cut_off_from_the_ledger_is_found_by_the_newest_certificate(
    releases: Releases, keys: KeyFolder, registry: FakeRegistry
) -> None:
    promote(releases, "1")
    promote(releases, "2")
    certificates = certified(MODEL, bundles_in(registry.shown(MODEL)), keys.trusted())
    rows = releases.store.ledger(MODEL)
    assert certified_faults(MODEL, rows, certificates) == ()
    found = certified_faults(MODEL, rows[:-1], certificates)
    assert found == (
        f"{MODEL}, ledger row 4: is missing; the certificate of version 2 behind production was made for it",
    )
    rewritten = [sealed(replace(row, actor="mallory")) for row in rows]
    assert len(certified_faults(MODEL, rewritten, certificates)) == len(certificates) == 4


def test_a_deleted_version_that_a_rollback_may_need_breaks_an_invariant(
    releases: Releases, registry: FakeRegistry
) -> None:
    promote(releases, "1")
    promote(releases, "2")
    registry.delete(MODEL, "1")
    broken = {finding.subject: finding.invariant for finding in violations(observe(releases, MODEL))}
    assert broken == {"version 1": 4, "alias previous": 14, "version 3": LINEAGE}  # nobody registered version 3


def share(releases: Releases, move: Move, version: str, weight: float, request_id: str) -> None:
    releases.store.commit_move(
        model=MODEL,
        move=move,
        version=version,
        weight=weight,
        expected_epoch=releases.store.head(MODEL).epoch,
        actor="ada",
        reason="why",
        request_id=request_id,
        evidence="",
        digest=releases.registry.get_version(MODEL, version).digest,
    )
    releases.projection.project(MODEL)


def certified_weight(releases: Releases, version: str, alias: str) -> float | None:
    bundle = releases.registry.get_version(MODEL, version).tags[f"release.certificate.{alias}"]
    return Certificate.from_statement(releases.keys.trusted().verify(bundle)).weight


def test_a_canary_and_a_shadow_are_certified_with_their_weight(releases: Releases, keys: KeyFolder) -> None:
    promote(releases, "1")
    stage(releases, "2")
    share(releases, Move.SHADOW_SET, "2", 1.0, "q2#rollout-shadow-0")
    share(releases, Move.CANARY_SET, "2", 0.25, "q2#rollout-canary-1")
    shown = releases.registry.shown(MODEL).aliases
    assert shown == {"production": "1", "staging": "2", "shadow": "2", "canary": "2"}
    assert [proven(releases, keys, "2", alias) for alias in ("staging", "shadow", "canary")] == [3, 4, 5]
    assert [certified_weight(releases, "2", alias) for alias in ("shadow", "canary")] == [1.0, 0.25]
    assert releases.projection.deviations(MODEL) == ()


def test_a_share_that_is_taken_away_leaves_no_alias_and_a_certificate_of_nothing(releases: Releases) -> None:
    promote(releases, "1")
    stage(releases, "2")
    share(releases, Move.CANARY_SET, "2", 0.25, "q2#rollout-canary-0")
    share(releases, Move.CANARY_SET, "2", 0.0, "q2#rollout-canary-1")
    assert releases.registry.find_alias(MODEL, "canary") is None
    assert certified_weight(releases, "2", "canary") == 0.0
    assert releases.projection.deviations(MODEL) == ()


def test_a_rollback_takes_a_canary_away(releases: Releases) -> None:
    for version in ("1", "2"):
        promote(releases, version)
    stage(releases, "3")
    share(releases, Move.CANARY_SET, "3", 0.25, "q3#rollout-canary-0")
    releases.rollback(MODEL, to=None, actor="ada", reason="errors")
    assert releases.registry.shown(MODEL).aliases == {"production": "1", "staging": "3"}


@pytest.mark.parametrize("alias", ["canary", "shadow"])
def test_a_canary_or_shadow_that_nobody_released_is_named_and_taken_away(
    releases: Releases, registry: FakeRegistry, alias: str
) -> None:
    promote(releases, "1")
    registry.set_alias(MODEL, alias, "1")
    (said,) = releases.projection.reconcile(MODEL, undo=True)
    assert said == f"{MODEL}: alias {alias} is version 1, the head says absent"
    assert registry.find_alias(MODEL, alias) is None


def test_a_request_id_that_looks_like_a_move_of_a_rollout_is_refused(releases: Releases) -> None:
    stage(releases, "1")
    with pytest.raises(Refused, match="#rollout-"):
        releases.request(MODEL, version="1", actor="ada", reason="better", request_id="q#rollout-1")
