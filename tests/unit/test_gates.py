"""Gates over the boundary; no data, NaN and a missing metric never pass; the report round-trips."""

import json
from collections.abc import Mapping
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.evidence import (
    QUANTILES,
    Baseline,
    Comparison,
    EvaluationReport,
    Measurement,
    finite_or_none,
)
from release_platform.domain.gate_spec import Against, GateSpec
from release_platform.domain.gates import Verdict, judge, judge_all

E = 1e-9


def measured(value: float | None, n_rows: int = 1_000) -> Measurement:
    return Measurement(value=value, n_rows=n_rows)


def report(
    *,
    quality: Mapping[str, float | None] | None = None,
    slices: Mapping[str, Mapping[str, Measurement | None]] | None = None,
    metric: str = "roc_auc",
    operational: Mapping[str, float | None] | None = None,
    baseline: Baseline | None = None,
) -> EvaluationReport:
    return EvaluationReport(
        model="credit_risk",
        model_digest="sha256:m",
        package_digest="sha256:p",
        data_fingerprint="sha256:d",
        n_training_rows=3_000,
        n_rows=1_000,
        quality={name: measured(value) for name, value in (quality or {}).items()},
        slices={
            column: {key: {} if m is None else {metric: m} for key, m in values.items()}
            for column, values in (slices or {}).items()
        },
        operational=operational or {},
        baseline=baseline,
    )


def comparison(lower: float, upper: float, improvement: float = 0.0) -> Comparison:
    """The 5 % quantile is `lower`, the 95 % one `upper`; further out both are worse."""
    below, above = [lower - 1.0] * 9, [upper + 1.0] * 9
    inner = [lower + (upper - lower) * i / 180 for i in range(181)]
    inner[-1] = upper
    return Comparison(
        candidate=0.8 + improvement, production=0.8, improvement=improvement, quantiles=tuple(below + inner + above)
    )


def against_production(comparisons: Mapping[str, Comparison]) -> EvaluationReport:
    return report(quality={"roc_auc": 0.8}, baseline=Baseline(version="7", digest="sha256:b", comparisons=comparisons))


class TestLimit:
    @pytest.mark.parametrize(
        ("value", "verdict"),
        [
            (0.8 - E, Verdict.FAILED),
            (0.8, Verdict.PASSED),
            (0.8 + E, Verdict.PASSED),
            (None, Verdict.INCONCLUSIVE),
        ],
    )
    def test_a_minimum_is_included(self, value: float | None, verdict: Verdict) -> None:
        found = judge(GateSpec(name="auc", metric="roc_auc", minimum=0.8), report(quality={"roc_auc": value}))
        assert found.verdict is verdict
        assert (found.value, found.limit, found.direction) == (value, 0.8, "at least")

    @pytest.mark.parametrize(
        ("value", "verdict"),
        [
            (50 - E, Verdict.PASSED),
            (50.0, Verdict.PASSED),
            (50 + E, Verdict.FAILED),
            (None, Verdict.INCONCLUSIVE),
        ],
    )
    def test_a_maximum_is_included(self, value: float | None, verdict: Verdict) -> None:
        gate = GateSpec(name="fast", metric="latency_p99_ms", maximum=50.0)
        found = judge(gate, report(operational={"latency_p99_ms": value}))
        assert found.verdict is verdict
        assert (found.value, found.limit, found.direction) == (value, 50.0, "at most")

    @pytest.mark.parametrize("metric", ["roc_auc", "latency_p99_ms"])
    def test_a_metric_that_the_report_does_not_have_is_inconclusive(self, metric: str) -> None:
        found = judge(GateSpec(name="gate", metric=metric, maximum=1.0), report())
        assert found.verdict is Verdict.INCONCLUSIVE
        assert not found.passed
        assert "was not measured" in found.reason

    @pytest.mark.parametrize("bad", [nan, inf, -inf])
    def test_a_number_that_is_not_finite_cannot_be_in_a_report(self, bad: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            measured(bad)
        with pytest.raises(ValueError, match="'latency_p99_ms'"):
            report(operational={"latency_p99_ms": bad})
        assert finite_or_none(bad) is None

    @pytest.mark.parametrize(
        ("value", "verdict", "limit"),
        [
            (0.7 - E, Verdict.FAILED, 0.7),
            (0.7, Verdict.PASSED, 0.7),
            (0.99, Verdict.PASSED, 0.7),
            (0.99 + E, Verdict.FAILED, 0.99),
        ],
    )
    def test_two_bounds_are_both_held(self, value: float, verdict: Verdict, limit: float) -> None:
        gate = GateSpec(name="auc", metric="roc_auc", minimum=0.7, maximum=0.99)
        found = judge(gate, report(quality={"roc_auc": value}))
        assert (found.verdict, found.limit) == (verdict, limit)
        assert found.direction == ("at most" if limit == 0.99 else "at least")

    @pytest.mark.parametrize(
        ("gate", "value"),
        [
            (GateSpec(name="leak", metric="roc_auc", maximum=0.99), 0.999),
            (GateSpec(name="leak", metric="log_loss", minimum=0.01), 0.001),
        ],
    )
    def test_better_than_plausible_fails_and_says_leak(self, gate: GateSpec, value: float) -> None:
        found = judge(gate, report(quality={gate.metric: value}))
        assert found.verdict is Verdict.FAILED
        assert "look for a leak" in found.reason

    @pytest.mark.parametrize(
        ("gate", "found"),
        [
            (GateSpec(name="g", metric="log_loss", maximum=0.5), report(quality={"log_loss": 0.6})),
            (GateSpec(name="g", metric="roc_auc", minimum=0.5), report(quality={"roc_auc": 0.4})),
            (GateSpec(name="g", metric="package_bytes", minimum=5), report(operational={"package_bytes": 4.0})),
        ],
    )
    def test_worse_than_asked_does_not_say_leak(self, gate: GateSpec, found: EvaluationReport) -> None:
        assert judge(gate, found).verdict is Verdict.FAILED
        assert "leak" not in judge(gate, found).reason

    def test_an_advisory_gate_is_judged_and_marked(self) -> None:
        gate = GateSpec(name="auc", metric="roc_auc", minimum=0.8, blocking=False)
        found = judge(gate, report(quality={"roc_auc": 0.5}))
        assert (found.verdict, found.blocking) == (Verdict.FAILED, False)

    @given(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), st.floats(-1e6, 1e6))
    def test_it_passes_exactly_where_a_value_is_at_or_over_the_minimum(self, value: float | None, limit: float) -> None:
        found = judge(GateSpec(name="g", metric="r2", minimum=limit), report(quality={"r2": value}))
        assert found.passed is (value is not None and value >= limit)


class TestSlices:
    gate = GateSpec(name="each_region", metric="roc_auc", minimum=0.7, slice="region", minimum_rows=100)

    def judge(self, **values: Measurement | None) -> Any:
        return judge(self.gate, report(slices={"region": values}))

    def test_the_worst_value_decides_and_is_named(self) -> None:
        found = self.judge(north=measured(0.9), south=measured(0.6), west=measured(0.65))
        assert (found.verdict, found.value) == (Verdict.FAILED, 0.6)
        assert "region=south" in found.reason

    def test_among_passing_values_the_lowest_is_shown(self) -> None:
        found = self.judge(north=measured(0.9), south=measured(0.7), west=measured(0.8))
        assert (found.verdict, found.value, found.limit) == (Verdict.PASSED, 0.7, 0.7)

    def test_under_a_maximum_the_highest_is_the_worst(self) -> None:
        gate = replace(self.gate, metric="brier", minimum=None, maximum=0.2)
        values = {"region": {"north": measured(0.1), "south": measured(0.15)}}
        found = judge(gate, report(slices=values, metric="brier"))
        assert (found.verdict, found.value, found.direction) == (Verdict.PASSED, 0.15, "at most")

    @pytest.mark.parametrize(
        ("n_rows", "verdict"), [(99, Verdict.PASSED), (100, Verdict.FAILED), (101, Verdict.FAILED)]
    )
    def test_a_value_with_too_few_rows_is_named_and_does_not_decide(self, n_rows: int, verdict: Verdict) -> None:
        found = self.judge(north=measured(0.9), south=measured(0.1, n_rows))
        assert found.verdict is verdict
        assert "south" in found.reason

    def test_without_a_value_that_has_enough_rows_it_is_inconclusive(self) -> None:
        found = self.judge(north=measured(0.9, 99))
        assert (found.verdict, found.value) == (Verdict.INCONCLUSIVE, None)
        assert "north" in found.reason

    def test_an_undefined_value_is_worse_than_a_passed_one_and_better_than_a_failed_one(self) -> None:
        assert self.judge(north=measured(0.9), south=measured(None)).verdict is Verdict.INCONCLUSIVE
        assert self.judge(north=measured(0.1), south=measured(None)).verdict is Verdict.FAILED

    def test_a_value_without_the_metric_never_passes(self) -> None:
        assert self.judge(north=measured(0.9), south=None).verdict is Verdict.INCONCLUSIVE

    def test_a_column_that_was_not_measured_is_inconclusive(self) -> None:
        assert judge(self.gate, report(quality={"roc_auc": 0.9})).verdict is Verdict.INCONCLUSIVE


class TestAgainstProduction:
    gate = GateSpec(name="no_worse", metric="roc_auc", against=Against.PRODUCTION, margin=0.01)

    def judge(self, lower: float, upper: float) -> Any:
        return judge(self.gate, against_production({"roc_auc": comparison(lower, upper)}))

    @pytest.mark.parametrize(
        ("lower", "upper", "verdict"),
        [
            (-0.01 + E, 0.02, Verdict.PASSED),
            (-0.01, 0.02, Verdict.PASSED),
            (-0.01 - E, 0.02, Verdict.INCONCLUSIVE),
            (-0.05, -0.01 + E, Verdict.INCONCLUSIVE),
            (-0.05, -0.01, Verdict.INCONCLUSIVE),
            (-0.05, -0.01 - E, Verdict.FAILED),
            (0.01, 0.02, Verdict.PASSED),
        ],
    )
    def test_it_is_a_test_of_non_inferiority(self, lower: float, upper: float, verdict: Verdict) -> None:
        found = self.judge(lower, upper)
        assert found.verdict is verdict
        assert (found.limit, found.direction) == (-0.01, "at least")
        assert "Production version 7" in found.reason

    def test_an_inconclusive_one_says_what_would_decide(self) -> None:
        assert "more held-out rows" in self.judge(-0.05, 0.05).reason

    def test_the_first_release_passes_and_says_why(self) -> None:
        found = judge(self.gate, report(quality={"roc_auc": 0.6}))
        assert (found.verdict, found.value, found.limit) == (Verdict.PASSED, 0.6, None)
        assert "first release" in found.reason

    @pytest.mark.parametrize("quality", [{}, {"roc_auc": None}])
    def test_the_first_release_does_not_pass_without_the_metric(self, quality: dict[str, float | None]) -> None:
        assert judge(self.gate, report(quality=quality)).verdict is Verdict.INCONCLUSIVE

    def test_a_production_that_could_not_be_compared_is_inconclusive(self) -> None:
        assert judge(self.gate, against_production({})).verdict is Verdict.INCONCLUSIVE

    def test_the_highest_confidence_is_judged(self) -> None:
        gate = replace(self.gate, confidence=0.995)
        assert judge(gate, against_production({"roc_auc": comparison(-5.0, -4.0)})).verdict is Verdict.FAILED

    def test_a_confidence_that_the_bootstrap_cannot_bound_is_no_gate(self) -> None:
        with pytest.raises(ValueError, match=r"up to 0\.995"):
            replace(self.gate, confidence=0.999)

    def test_all_gates_are_judged_in_order(self) -> None:
        gates = (self.gate, GateSpec(name="auc", metric="roc_auc", minimum=0.5))
        found = judge_all(gates, report(quality={"roc_auc": 0.6}))
        assert [result.gate for result in found] == ["no_worse", "auc"]
        assert json.loads(json.dumps(found[0].to_json()))["verdict"] == "passed"


class TestComparison:
    def test_a_bound_is_the_quantile_of_its_probability(self) -> None:
        found = Comparison(candidate=1.0, production=1.0, improvement=0.0, quantiles=QUANTILES)
        for probability in (0.005, 1 - 0.95, 0.5, 0.9, 0.95, 0.995):
            assert found.bound(probability) == pytest.approx(probability)

    @pytest.mark.parametrize(("probability", "bound"), [(0.051, 0.05), (0.0549, 0.05), (0.949, 0.95), (0.9451, 0.95)])
    def test_between_two_quantiles_the_outer_one_is_taken(self, probability: float, bound: float) -> None:
        found = Comparison(candidate=1.0, production=1.0, improvement=0.0, quantiles=QUANTILES)
        assert found.bound(probability) == bound

    @pytest.mark.parametrize("probability", [0.0, 0.004, 0.996, 1.0])
    def test_further_out_there_is_none(self, probability: float) -> None:
        found = Comparison(candidate=1.0, production=1.0, improvement=0.0, quantiles=QUANTILES)
        assert found.bound(probability) is None

    @pytest.mark.parametrize("bad", [nan, inf])
    def test_it_is_finite_and_complete_or_does_not_exist(self, bad: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            Comparison(candidate=1.0, production=bad, improvement=0.0, quantiles=QUANTILES)
        with pytest.raises(ValueError, match="199 quantiles"):
            Comparison(candidate=1.0, production=1.0, improvement=0.0, quantiles=(0.0,))


class TestReport:
    def full(self) -> EvaluationReport:
        of = report(
            quality={"roc_auc": 0.1 + 0.2, "brier": None},
            slices={
                "region": {
                    "north": measured(0.75, 12),
                    "süd": Measurement(value=0.1, lower=0.0, upper=0.3, n_rows=40),
                }
            },
            operational={"latency_p99_ms": 1.25, "parity_difference": None},
            baseline=Baseline(version="7", digest="sha256:b", comparisons={"roc_auc": comparison(-0.01, 0.02)}),
        )
        return replace(of, notes=("did not convert to ONNX",))

    @pytest.mark.parametrize("of", [report(), report(quality={"roc_auc": 1.0})])
    def test_a_first_release_is_the_same_after_json(self, of: EvaluationReport) -> None:
        again = EvaluationReport.from_json(json.loads(json.dumps(of.to_json(), allow_nan=False)))
        assert (again, again.digest) == (of, of.digest)

    def test_a_full_report_is_the_same_after_json(self) -> None:
        again = EvaluationReport.from_json(json.loads(json.dumps(self.full().to_json(), allow_nan=False)))
        assert (again, again.digest) == (self.full(), self.full().digest)

    def test_its_digest_does_not_depend_on_the_order_of_metrics(self) -> None:
        of = self.full()
        assert replace(of, quality=dict(reversed(of.quality.items()))).digest == of.digest

    def test_its_digest_is_stable_over_releases_of_the_platform(self) -> None:
        assert self.full().digest == "sha256:a1a66cc845f641ca3a329a8d0540788c8b89dd13f1bf24143a89c61f8e157a6d"

    @pytest.mark.parametrize(
        "change",
        [
            {"n_rows": 999},
            {"notes": ()},
            {"package_digest": "sha256:other"},
            {"quality": {"roc_auc": measured(0.3)}},
            {"operational": {"latency_p99_ms": 1.25}},
            {"baseline": None},
        ],
    )
    def test_its_digest_changes_with_its_content(self, change: dict[str, Any]) -> None:
        assert replace(self.full(), **change).digest != self.full().digest

    def test_another_schema_is_refused(self) -> None:
        with pytest.raises(ValueError, match="schema 0"):
            EvaluationReport.from_json({**self.full().to_json(), "schema_version": 0})
