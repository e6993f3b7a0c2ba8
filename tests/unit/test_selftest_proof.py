"""What Dagster recorded of a selftest is a proof only for exactly the gates and the model that it was of."""

from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest

from release_platform.definitions import EXAMPLES
from release_platform.defs.selftest import proof_of, selftest_evaluation
from release_platform.domain.selftest import Selftest, Twin, TwinResult
from release_platform.domain.spec import PolicySpec
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
        assert "before the defs.yaml was changed" in problem


def test_what_does_not_make_the_model_leaves_it_standing(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(selftest_evaluation(MODEL, selftest()))
    for other in (changed(policy=PolicySpec(approvals=2)), changed(description="another"), changed(owner="team:other")):
        assert proof_of(instance, other) == (selftest().gate, "")
