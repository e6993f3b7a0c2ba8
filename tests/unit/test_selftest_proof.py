"""What Dagster recorded of a selftest is a proof only for exactly the gates and the model that it was of."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from release_platform.definitions import EXAMPLES
from release_platform.defs.selftest import proof_of, selftest_evaluation
from release_platform.domain.selftest import Selftest, Twin, TwinResult
from release_platform.domain.spec import PolicySpec, SourceSpec
from release_platform.gating.selftest import binding_of
from release_platform.project import Project, parse_spec, read_documents

FILE = EXAMPLES / "diabetes" / "defs.yaml"
MODEL = Project(spec=parse_spec(read_documents(FILE)[0]["attributes"], file=FILE), folder=FILE.parent)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


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


def test_nothing_that_was_recorded_is_no_proof(instance: dg.DagsterInstance) -> None:
    proof, problem = proof_of(instance, MODEL)
    assert proof is None
    assert problem == "the gates were never proven to stop spoilt models; run `release gate selftest diabetes`"


def test_what_was_recorded_is_the_proof(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(selftest_evaluation(MODEL, selftest()))
    proof, problem = proof_of(instance, MODEL)
    assert proof == selftest().gate
    assert problem == ""


def test_the_newest_one_counts(instance: dg.DagsterInstance) -> None:
    for found in (selftest(), selftest(stopped=False)):
        instance.report_runless_asset_event(selftest_evaluation(MODEL, found))
    assert "constant was stopped by no gate; correct the gates" in proof_of(instance, MODEL)[1]


def test_another_gate_or_another_model_makes_it_void(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(selftest_evaluation(MODEL, selftest()))
    looser = replace(MODEL.spec.gates[0], maximum=100.0)
    for other in (changed(gates=(looser, *MODEL.spec.gates[1:])), changed(seed=1)):
        proof, problem = proof_of(instance, other)
        assert proof is None
        assert "before the defs.yaml, the code of the source or the platform was changed" in problem


def test_another_source_module_makes_it_void_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "diabetes_rows.py"
    module.write_text("def load(): ...\n")
    of_python = changed(source=SourceSpec(python="diabetes_rows:load"))
    proven = replace(selftest(), binding=binding_of(of_python))
    instance.report_runless_asset_event(selftest_evaluation(of_python, proven))
    assert proof_of(instance, of_python) == (proven.gate, "")
    module.write_text("def load(): return None\n")
    assert proof_of(instance, of_python)[0] is None


def test_a_python_file_of_the_model_makes_it_void(tmp_path: Path) -> None:
    model = replace(MODEL, folder=tmp_path)
    before = binding_of(model)
    (tmp_path / "features.py").write_text("SCALE = 2\n")
    assert binding_of(model) != before


def test_what_does_not_make_the_model_leaves_it_standing(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(selftest_evaluation(MODEL, selftest()))
    for other in (changed(policy=PolicySpec(approvals=2)), changed(description="another"), changed(owner="team:other")):
        assert proof_of(instance, other) == (selftest().gate, "")
