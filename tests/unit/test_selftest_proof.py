"""What was signed of a selftest is a proof only for exactly the gates and the model that it was of."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.definitions import EXAMPLES
from release_platform.defs.selftest import proof_of
from release_platform.domain.data_spec import SourceSpec
from release_platform.domain.errors import IntegrityError
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.selftest import Selftest, Twin, TwinResult
from release_platform.gating.selftest import binding_of
from release_platform.project import Project, parse_spec, read_documents
from release_platform.proofs import Proofs
from tests.fakes.clock import FakeClock

FILE = EXAMPLES / "diabetes" / "defs.yaml"
MODEL = Project(spec=parse_spec(read_documents(FILE)[0]["attributes"], file=FILE), folder=FILE.parent)


CLOCK = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/release.db"


@pytest.fixture
def store(url: str) -> Iterator[ReleaseStore]:
    opened = ReleaseStore(url)
    yield opened
    opened.close()
    change(url, "DELETE FROM selftests")


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


@pytest.fixture
def proofs(store: ReleaseStore, keys: KeyFolder) -> Proofs:
    return Proofs(store, keys, CLOCK)


def change(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def keep(proofs: Proofs, found: Selftest) -> None:
    CLOCK.pass_s(1)
    proofs.keep(found)


def selftest(*, stopped: bool = True) -> Selftest:
    return Selftest(
        model="diabetes",
        binding=binding_of(MODEL),
        n_rows=442,
        results=(
            TwinResult(twin=Twin.CLEAN, detail="", stopped_by={}),
            TwinResult(twin=Twin.CONSTANT, detail="all alike", stopped_by={"explains": "r2 is 0"} if stopped else {}),
        ),
    )


def changed(**attributes: object) -> Project:
    return replace(MODEL, spec=replace(MODEL.spec, **attributes))


def test_nothing_that_was_recorded_is_no_proof(proofs: Proofs) -> None:
    proof, problem = proof_of(proofs, MODEL)
    assert proof is None
    assert problem == "the gates were never proven to stop spoilt models; run `release gate selftest diabetes`"


def test_what_was_recorded_is_the_proof(proofs: Proofs) -> None:
    keep(proofs, selftest())
    proof, problem = proof_of(proofs, MODEL)
    assert proof == selftest()
    assert problem == ""


def test_the_newest_one_counts(proofs: Proofs) -> None:
    for found in (selftest(), selftest(stopped=False)):
        keep(proofs, found)
    assert "constant was stopped by no gate; correct the gates" in proof_of(proofs, MODEL)[1]


def test_what_is_proven_can_only_be_said_by_who_has_the_signing_key(
    proofs: Proofs, store: ReleaseStore, keys: KeyFolder, tmp_path: Path
) -> None:
    stranger = Proofs(store, KeyFolder(tmp_path / "strange"), CLOCK)
    keep(proofs, selftest(stopped=False))
    keep(stranger, selftest())
    with pytest.raises(IntegrityError, match="not trusted here"):
        proof_of(proofs, MODEL)


@pytest.mark.parametrize("changed", ["at = '2026-01-01'", "signature = 'none'"])
def test_what_was_signed_cannot_be_changed(proofs: Proofs, url: str, changed: str) -> None:
    keep(proofs, selftest())
    change(url, f"UPDATE selftests SET {changed}")
    with pytest.raises(IntegrityError, match="the signature"):
        proof_of(proofs, MODEL)


def test_evidence_that_failed_cannot_be_put_under_a_signature_of_better_one(proofs: Proofs, url: str) -> None:
    keep(proofs, selftest(stopped=False))
    change(url, """UPDATE selftests SET value = replace(value, '"stopped_by": {}', '"stopped_by": {"a": "b"}')""")
    with pytest.raises(IntegrityError, match="a selftest of diabetes"):
        proof_of(proofs, MODEL)


def test_a_key_that_is_trusted_no_more_takes_no_proof_along(proofs: Proofs, keys: KeyFolder) -> None:
    keep(proofs, selftest())
    (before,) = keys.trusted().ids
    keys.rotate()
    proofs.renew("diabetes")
    keys.distrust(before)
    assert proof_of(proofs, MODEL) == (selftest(), "")


def test_another_gate_or_another_model_makes_it_void(proofs: Proofs) -> None:
    keep(proofs, selftest())
    looser = replace(MODEL.spec.gates[0], maximum=100.0)
    for other in (changed(gates=(looser, *MODEL.spec.gates[1:])), changed(seed=1)):
        proof, problem = proof_of(proofs, other)
        assert proof is None
        assert "before the defs.yaml, the code of the source or the platform was changed" in problem


def test_another_source_module_makes_it_void_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proofs: Proofs
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "diabetes_rows.py"
    module.write_text("def load(): ...\n")
    of_python = changed(source=SourceSpec(python="diabetes_rows:load"))
    proven = replace(selftest(), binding=binding_of(of_python))
    keep(proofs, proven)
    assert proof_of(proofs, of_python) == (proven, "")
    module.write_text("def load(): return None\n")
    assert proof_of(proofs, of_python)[0] is None


def test_a_python_file_of_the_model_makes_it_void(tmp_path: Path) -> None:
    model = replace(MODEL, folder=tmp_path)
    before = binding_of(model)
    (tmp_path / "features.py").write_text("SCALE = 2\n")
    assert binding_of(model) != before


def test_what_does_not_make_the_model_leaves_it_standing(proofs: Proofs) -> None:
    keep(proofs, selftest())
    for other in (changed(policy=PolicySpec(approvals=2)), changed(description="another"), changed(owner="team:other")):
        assert proof_of(proofs, other) == (selftest(), "")
