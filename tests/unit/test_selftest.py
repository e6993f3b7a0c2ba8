"""A selftest passes where every spoilt twin was stopped and the clean one was not; each twin has its one defect."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.model_package import ModelPackage
from release_platform.definitions import EXAMPLES
from release_platform.domain.errors import SpecError
from release_platform.domain.gates import Verdict
from release_platform.domain.identity import Manifest
from release_platform.domain.metrics import Task
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.policy_spec import Selftest as Demand
from release_platform.domain.selftest import STOPPED, Binding, Selftest, Twin, TwinResult
from release_platform.domain.spec import ModelSpec
from release_platform.pipeline.features import FeatureRows, training_age_days
from release_platform.pipeline.twins import Skipped, SpoiltRows, spoil_answers, spoil_rows
from release_platform.project import parse_spec, read_documents

N = 400


def spec_of(example: str) -> ModelSpec:
    file = EXAMPLES / example / "defs.yaml"
    return parse_spec(read_documents(file)[0]["attributes"], file=file)


REGRESSION, BINARY, MULTICLASS = spec_of("diabetes"), spec_of("flight_delay"), spec_of("digits")


def result(twin: Twin, *, stopped: bool = False, skipped: str = "") -> TwinResult:
    return TwinResult(twin=twin, detail="", stopped_by={"floor": "too low"} if stopped else {}, skipped=skipped)


def selftest(*results: TwinResult) -> Selftest:
    return Selftest(model="m", binding=Binding(spec="sha256:s", code="sha256:c"), n_rows=N, results=results)


GOOD = (result(Twin.CLEAN), result(Twin.CONSTANT, stopped=True), result(Twin.WORSE_SLICE, skipped="no slices"))


class TestOutcome:
    def test_every_spoilt_twin_is_stopped_and_the_clean_one_passes(self) -> None:
        found = selftest(*GOOD)
        assert found.passed
        assert (found.n_stopped, found.n_spoilt) == (1, 1)
        assert found.said == "1 of 1 spoilt twins were stopped, the clean one passed"

    def test_one_spoilt_twin_that_no_gate_stops_is_named(self) -> None:
        found = selftest(*GOOD, result(Twin.SLOW))
        assert not found.passed
        assert found.said == "1 of 2 spoilt twins were stopped: slow was stopped by no gate"

    def test_gates_that_stop_the_clean_one_prove_nothing(self) -> None:
        found = selftest(result(Twin.CLEAN, stopped=True), *GOOD[1:])
        assert not found.passed
        assert "clean was stopped by floor" in found.said

    @pytest.mark.parametrize("results", [(), (result(Twin.CLEAN),), (result(Twin.CONSTANT, stopped=True),)])
    def test_no_twin_is_no_proof(self, results: tuple[TwinResult, ...]) -> None:
        assert not selftest(*results).passed

    def test_it_stands_among_the_gates_of_a_version_under_a_metric_that_no_yaml_can_name(self) -> None:
        gate = selftest(*GOOD).gate
        assert (gate.verdict, gate.blocking, gate.metric) == (Verdict.PASSED, True, STOPPED)
        assert selftest(*GOOD, result(Twin.SLOW)).gate.verdict is Verdict.FAILED
        described = read_documents(EXAMPLES / "digits" / "defs.yaml")[0]["attributes"]
        described["gates"].append({"name": "mine", "metric": STOPPED, "minimum": 0})
        with pytest.raises(SpecError, match="unknown metric"):
            parse_spec(described, file=EXAMPLES)

    def test_it_is_read_back_as_it_was_written(self) -> None:
        found = selftest(*GOOD)
        assert Selftest.from_json(found.to_json()) == found


class TestPolicy:
    def test_a_policy_without_the_demand_has_the_digest_that_it_always_had(self) -> None:
        assert "selftest" not in PolicySpec().terms
        assert PolicySpec(selftest=Demand.REQUIRED).digest != PolicySpec().digest

    @pytest.mark.parametrize("policy", [PolicySpec(), PolicySpec(selftest=Demand.REQUIRED, approvals=2)])
    def test_recorded_terms_are_read_back(self, policy: PolicySpec) -> None:
        assert PolicySpec.from_terms(policy.terms) == policy


def rows(task: Task, *, slices: bool = True) -> FeatureRows:
    generator = np.random.default_rng(0)
    x = generator.normal(size=N)
    target = x if task is Task.REGRESSION else np.where(x > 0, "yes", "no").astype(object)
    frame = pd.DataFrame({"x": x, "z": generator.normal(size=N), "kind": np.where(x > 1, "a", "b").astype(object)})
    held_out = np.arange(N) >= 300
    named = {"origin": np.array(["JFK", "EWR", "EWR", "LGA"] * (N // 4), dtype=object)} if slices else {}
    return FeatureRows(features=frame, target=target, held_out=held_out, slices=named)


TIMES = np.datetime64("2026-01-01") + np.arange(N).astype("timedelta64[D]")


def spoilt(twin: Twin, spec: ModelSpec, table: FeatureRows, *, timed: bool = True) -> SpoiltRows:
    found = spoil_rows(twin, spec, table, TIMES if timed else None, np.random.default_rng(1))
    assert isinstance(found, SpoiltRows), found
    return found


class TestRows:
    def test_the_clean_table_is_never_changed(self) -> None:
        table = rows(Task.BINARY)
        kept = (table.features.copy(), table.target.copy())
        for twin in Twin:
            spoil_rows(twin, replace(BINARY, gates=BINARY.gates[:1]), table, TIMES, np.random.default_rng(1))
        pd.testing.assert_frame_equal(table.features, kept[0])
        assert (table.target == kept[1]).all()

    def test_only_labels_of_training_rows_are_shuffled(self) -> None:
        table = rows(Task.BINARY)
        found = spoilt(Twin.SHUFFLED_LABELS, BINARY, table).table
        assert (found.target[table.held_out] == table.target[table.held_out]).all()
        assert (found.target != table.target).any()
        assert sorted(found.target) == sorted(table.target)

    @pytest.mark.parametrize("spec", [REGRESSION, BINARY])
    def test_a_leak_tells_the_answer_in_held_out_rows_too(self, spec: ModelSpec) -> None:
        table = rows(spec.task)
        found = spoilt(Twin.LEAKED_TARGET, spec, table).table.features["x"].to_numpy()
        answer = table.target if spec.task is Task.REGRESSION else (table.target == "no").astype(float)
        assert (found == answer).all()

    def test_a_leak_goes_into_a_text_where_there_are_no_numbers(self) -> None:
        table = rows(Task.BINARY)
        table = replace(table, features=table.features[["kind"]])
        found = spoilt(Twin.LEAKED_TARGET, BINARY, table).table
        assert (found.features["kind"].to_numpy() == table.target).all()

    def test_a_stale_twin_is_trained_on_the_oldest_rows_and_judged_on_all(self) -> None:
        table = rows(Task.BINARY)
        found = spoilt(Twin.STALE_DATA, BINARY, table)
        assert found.kept is not None
        assert np.flatnonzero(found.kept).tolist() == [*range(75), *range(300, 400)]
        assert training_age_days(TIMES, table.held_out) == 100.0
        assert training_age_days(TIMES[found.kept], found.table.held_out) == 325.0

    def test_only_one_slice_is_worse_and_every_row_of_it_keeps_its_label(self) -> None:
        spec = replace(BINARY, gates=(replace(BINARY.gates[2], minimum_rows=20), BINARY.gates[0]))
        table = rows(Task.BINARY)
        found = spoilt(Twin.WORSE_SLICE, spec, table)
        assert "origin=JFK" in found.detail
        worse = table.slices["origin"] == "JFK"
        pd.testing.assert_frame_equal(found.table.features[~worse], table.features[~worse])
        assert (found.table.features["x"][worse] != table.features["x"][worse]).mean() > 0.9
        assert set(found.table.features["x"]) == set(table.features["x"])
        assert (found.table.target == table.target).all()

    def test_features_are_missing_in_numbers_and_in_texts(self) -> None:
        found = spoilt(Twin.NAN_FEATURES, BINARY, rows(Task.BINARY)).table.features
        assert 0.85 < found["x"].isna().mean() < 0.95
        assert (found["kind"] == "<missing>").mean() == found["x"].isna().mean()

    def test_a_constant_twin_sees_no_difference_in_training(self) -> None:
        table = rows(Task.BINARY)
        found = spoilt(Twin.CONSTANT, BINARY, table).table.features
        assert found[~table.held_out].nunique().tolist() == [1, 1, 1]
        pd.testing.assert_frame_equal(found[table.held_out], table.features[table.held_out])

    @pytest.mark.parametrize(
        ("twin", "spec", "why"),
        [
            (Twin.STALE_DATA, REGRESSION, "its split is random, so nothing says how old a training row is"),
            (Twin.WORSE_SLICE, MULTICLASS, "the model has no slices"),
            (Twin.WORSE_SLICE, BINARY, "no value of 'origin' has 1000 held-out rows"),
            (Twin.UNCALIBRATED, REGRESSION, "a regression gives no probabilities"),
        ],
    )
    def test_a_twin_that_does_not_apply_says_why(self, twin: Twin, spec: ModelSpec, why: str) -> None:
        found = spoil_rows(twin, spec, rows(spec.task), None, np.random.default_rng(1))
        assert found == Skipped(why=why)


class Sure:
    """An engine that is sure of its answers."""

    def predict(self, features: object) -> np.ndarray:
        return np.array([[0.99, 0.01], [0.2, 0.8]])

    predict_matrix = predict


def package() -> ModelPackage:
    return ModelPackage(
        model="m",
        task=Task.BINARY,
        classes=("no", "yes"),
        plan=BINARY.plan,
        engine=Sure(),
        engine_name="sure",
        manifest=Manifest(files=()),
        golden={},
    )


class TestAnswers:
    def test_an_uncalibrated_twin_answers_in_the_same_order_and_is_less_sure(self) -> None:
        worse, _ = spoil_answers(Twin.UNCALIBRATED, package(), 0.1)
        found = worse.predict_features({})
        assert found.probabilities is not None
        assert found.values.tolist() == ["no", "yes"]
        assert found.probabilities.max(axis=1).tolist() == pytest.approx([0.759, 0.586], abs=1e-3)
        assert found.probabilities.sum(axis=1).tolist() == pytest.approx([1.0, 1.0])

    def test_a_slow_twin_is_slower_by_as_much_as_it_says(self) -> None:
        _, said = spoil_answers(Twin.SLOW, package(), 0.1)
        assert said == "each prediction takes 0.3 s longer"
        _, said = spoil_answers(Twin.SLOW, package(), 200.0)
        assert said == "each prediction takes 2 s longer"

    def test_any_other_twin_answers_as_it_was_trained(self) -> None:
        honest = package()
        assert spoil_answers(Twin.CLEAN, honest, 0.1) == (honest, "")
