"""Evaluation: intervals, slices, the comparison with Production, latency, and breaks of the signature."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.evidence import QUANTILES
from release_platform.domain.features import ColumnType, FeaturePlan, Input
from release_platform.domain.metrics import Task, metrics_for
from release_platform.domain.prediction import Predictions
from release_platform.domain.signature import signature_breaks
from release_platform.pipeline import bootstrap
from release_platform.pipeline.evaluation import compare, group_rows, latency_p99_ms, measure, measure_slices

LABELS = np.array(["no", "yes"], dtype=object)
CLASSES = ("no", "yes")
METRICS = [metric.name for metric in metrics_for(Task.BINARY)]


def say(scores: np.ndarray) -> Predictions:
    return Predictions(values=LABELS[(scores > 0.5).astype(int)], probabilities=np.column_stack([1 - scores, scores]))


def rows_of(n_rows: int, *, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, Predictions]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n_rows)
    scores = 1 / (1 + np.exp(-(2 * truth - 1 + noise * rng.normal(size=n_rows))))
    return LABELS[truth], say(scores)


class TestBootstrap:
    @pytest.mark.parametrize("n_rows", [1, 143, bootstrap.EXACT_ROWS, bootstrap.EXACT_ROWS + 1, 80_000])
    def test_blocks_hold_all_resamples_and_no_more(self, n_rows: int) -> None:
        blocks = list(bootstrap.blocks(n_rows, 37, seed=0))
        assert sum(len(block) for block in blocks) == 37
        assert {block.shape[1] for block in blocks} == {n_rows}
        assert all(block.dtype.kind == "u" for block in blocks)

    def test_up_to_the_limit_a_resample_has_as_many_rows_as_the_data(self) -> None:
        for block in bootstrap.blocks(bootstrap.EXACT_ROWS, 3, seed=1):
            assert set(block.sum(axis=1).tolist()) == {bootstrap.EXACT_ROWS}

    def test_above_it_counts_are_poisson_of_mean_and_variance_one(self) -> None:
        table = bootstrap._poisson_table().astype(float)
        assert table.mean() == pytest.approx(1, abs=1e-4)
        assert table.var() == pytest.approx(1, abs=1e-3)
        (counts,) = bootstrap.blocks(50_000, 10, seed=2)
        assert counts.mean() == pytest.approx(1, abs=0.01)

    def test_equal_seeds_give_equal_counts_and_others_do_not(self) -> None:
        first, again, other = (next(bootstrap.blocks(200, 5, seed)) for seed in (3, 3, 4))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize(("n_rows", "expected"), [(0, 1000), (40_000, 1000), (80_000, 500), (10**9, 200)])
    def test_large_data_is_resampled_less_often_but_never_under_200_times(self, n_rows: int, expected: int) -> None:
        assert bootstrap.n_resamples(n_rows) == expected

    def test_an_interval_needs_nine_tenths_of_the_resamples(self) -> None:
        enough = np.array([1.0] * 9 + [np.nan])
        assert bootstrap.interval(enough) == (1.0, 1.0)
        assert bootstrap.interval(np.array([1.0] * 8 + [np.nan] * 2)) is None
        assert bootstrap.interval(np.array([])) is None

    def test_the_two_draws_give_the_same_interval_for_a_mean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = np.random.default_rng(0).normal(size=2_000)
        exact = _interval_of_mean(x)
        monkeypatch.setattr(bootstrap, "EXACT_ROWS", 0)
        assert _interval_of_mean(x) == pytest.approx(exact, abs=0.006)
        half = 1.96 * x.std() / np.sqrt(len(x))
        assert exact == pytest.approx((x.mean() - half, x.mean() + half), abs=0.006)


def _interval_of_mean(x: np.ndarray) -> tuple[float, float] | None:
    drawn = bootstrap.resample({"mean": lambda w: w @ x / w.sum(axis=1)}, len(x), resamples=4_000, seed=5)
    return bootstrap.interval(drawn["mean"])


class TestMeasure:
    def test_every_metric_has_a_value_inside_or_near_its_interval(self) -> None:
        truth, said = rows_of(500)
        found = measure(Task.BINARY, METRICS, truth, said, CLASSES, 1, seed=0)
        assert list(found) == METRICS
        for of in found.values():
            assert of.n_rows == 500
            assert of.value is not None
            assert of.lower < of.upper  # type: ignore[operator]
        assert found["roc_auc"].lower < found["roc_auc"].value < found["roc_auc"].upper  # type: ignore[operator]

    def test_more_rows_give_a_narrower_interval(self) -> None:
        few, many = (measure(Task.BINARY, ["brier"], *rows_of(n), CLASSES, 1, seed=0)["brier"] for n in (100, 10_000))
        assert many.upper - many.lower < few.upper - few.lower  # type: ignore[operator]

    def test_equal_seeds_give_equal_measurements(self) -> None:
        first, again = (measure(Task.BINARY, METRICS, *rows_of(200), CLASSES, 1, seed=7) for _ in range(2))
        assert first == again

    @pytest.mark.parametrize(("n_rows", "has_interval"), [(29, False), (30, True)])
    def test_an_interval_needs_30_rows(self, n_rows: int, has_interval: bool) -> None:
        found = measure(Task.BINARY, ["accuracy"], *rows_of(n_rows), CLASSES, 1, seed=0)["accuracy"]
        assert (found.lower is not None) is has_interval
        assert found.value is not None

    def test_without_rows_every_value_is_none(self) -> None:
        found = measure(Task.BINARY, METRICS, *rows_of(0), CLASSES, 1, seed=0)
        assert {(of.value, of.lower, of.upper, of.n_rows) for of in found.values()} == {(None, None, None, 0)}

    def test_a_metric_that_most_resamples_leave_undefined_has_no_interval(self) -> None:
        truth = LABELS[np.array([1] + [0] * 99)]  # a resample misses the only positive in 37 % of cases
        found = measure(Task.BINARY, ["recall"], truth, say(np.full(100, 0.9)), CLASSES, 1, seed=0)["recall"]
        assert (found.value, found.lower, found.upper) == (1.0, None, None)

    def test_a_large_set_needs_little_memory(self) -> None:
        truth, said = rows_of(80_000)
        tracemalloc.start()
        measure(Task.BINARY, ["roc_auc", "average_precision", "brier"], truth, said, CLASSES, 1, seed=0)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 100e6


class TestSlices:
    def test_each_value_is_measured_on_its_own_rows(self) -> None:
        truth, said = rows_of(300)
        place = np.array(["north", "south", "south"] * 100, dtype=object)
        found = measure_slices(Task.BINARY, METRICS, {"place": place}, truth, said, CLASSES, 1, seed=0)
        assert list(found["place"]) == ["south", "north"]
        south = place == "south"
        alone = Predictions(values=said.values[south], probabilities=said.probabilities[south])  # type: ignore[index]
        whole = measure(Task.BINARY, METRICS, truth[south], alone, CLASSES, 1, seed=0)
        for metric, of in found["place"]["south"].items():
            assert of.n_rows == 200
            assert of.value == pytest.approx(whole[metric].value, abs=1e-9)

    def test_a_small_value_has_a_value_and_no_interval(self) -> None:
        truth, said = rows_of(100)
        place = np.array(["big"] * 71 + ["small"] * 29, dtype=object)
        found = measure_slices(Task.BINARY, ["brier"], {"place": place}, truth, said, CLASSES, 1, seed=0)["place"]
        assert found["big"]["brier"].lower is not None
        assert found["small"]["brier"].value is not None
        assert found["small"]["brier"].lower is None

    def test_the_30_most_frequent_values_stand_alone_and_the_rest_is_pooled(self) -> None:
        values = np.array([f"v{i:02d}" for i in range(40) for _ in range(50 - i)] + [None], dtype=object)
        groups = group_rows(values)
        assert list(groups) == [f"v{i:02d}" for i in range(30)] + ["<other>", "<missing>"]
        assert len(groups["<other>"]) == sum(50 - i for i in range(30, 40))
        assert sum(map(len, groups.values())) == len(values)

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (np.array([1.0, np.nan, 2.5, 1.0]), ["1", "2.5", "<missing>"]),
            (np.array(["a", "<missing>", "a"], dtype=object), ["a", "<missing>"]),
            (np.array([None, float("nan"), True], dtype=object), ["True", "<missing>"]),
            (np.array([3, 3, 4]), ["3", "4"]),
            (np.array(["2013-01-01", "NaT"], dtype="datetime64[D]"), ["2013-01-01", "<missing>"]),
            (np.array(["<other>", "a"], dtype=object), ["a", "<other>"]),
            (np.array([], dtype=object), []),
        ],
    )
    def test_values_are_written_for_people_and_missing_ones_are_named(
        self, values: np.ndarray, expected: list[str]
    ) -> None:
        assert list(group_rows(values)) == expected


class TestCompare:
    def test_a_model_is_exactly_as_good_as_itself(self) -> None:
        truth, said = rows_of(300)
        for found in compare(Task.BINARY, METRICS, truth, said, said, CLASSES, 1, seed=0).values():
            assert found.improvement == 0
            assert set(found.quantiles) == {0.0}

    @pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "accuracy"])
    def test_improvement_is_positive_where_the_candidate_is_better_in_either_direction(self, metric: str) -> None:
        truth, good = rows_of(1_000, noise=0.5)
        bad = rows_of(1_000, noise=3.0)[1]
        better = compare(Task.BINARY, [metric], truth, good, bad, CLASSES, 1, seed=0)[metric]
        worse = compare(Task.BINARY, [metric], truth, bad, good, CLASSES, 1, seed=0)[metric]
        assert better.improvement == -worse.improvement > 0
        assert better.bound(0.05) > 0 > worse.bound(0.95)  # type: ignore[operator]
        assert len(better.quantiles) == len(QUANTILES)
        assert list(better.quantiles) == sorted(better.quantiles)

    def test_pairing_leaves_out_what_the_rows_have_in_common(self) -> None:
        truth, said = rows_of(2_000)
        assert said.probabilities is not None
        near = say(np.clip(said.probabilities[:, 1] + 0.01, 0, 1))
        found = compare(Task.BINARY, ["roc_auc"], truth, near, said, CLASSES, 1, seed=0)["roc_auc"]
        alone = measure(Task.BINARY, ["roc_auc"], truth, said, CLASSES, 1, seed=0)["roc_auc"]
        assert found.quantiles[-1] - found.quantiles[0] < 0.05 * (alone.upper - alone.lower)  # type: ignore[operator]

    def test_production_may_have_its_classes_in_another_order(self) -> None:
        truth, said = rows_of(300)
        assert said.probabilities is not None
        turned = Predictions(values=said.values, probabilities=said.probabilities[:, ::-1])
        found = compare(Task.BINARY, METRICS, truth, said, turned, CLASSES, 1, seed=0, production_classes=("yes", "no"))
        assert {of.improvement for of in found.values()} == {0.0}

    def test_without_the_positive_class_in_production_nothing_can_be_compared(self) -> None:
        truth, said = rows_of(300)
        other = Predictions(values=np.full(300, "no", dtype=object), probabilities=said.probabilities)
        assert not compare(
            Task.BINARY, METRICS, truth, said, other, CLASSES, 1, seed=0, production_classes=("no", "late")
        )

    def test_a_metric_that_is_undefined_for_one_of_them_is_left_out(self) -> None:
        truth, said = rows_of(300)
        never = say(np.zeros(300))
        found = compare(Task.BINARY, ["precision", "brier"], truth, said, never, CLASSES, 1, seed=0)
        assert list(found) == ["brier"]


class TestLatency:
    def clock_of(self, spent_s: list[float]) -> Iterator[float]:
        now = 0.0
        yield now  # the start
        for number, seconds in enumerate(spent_s):
            if number:
                yield now  # the look at the budget
            yield now
            now += seconds
            yield now
        yield now

    def test_it_is_the_99th_percentile_in_milliseconds(self) -> None:
        ticks = self.clock_of([0.001] * 99 + [0.005] * 2)
        found = latency_p99_ms(lambda row: row, 5, 101, clock=lambda: next(ticks))
        assert found == pytest.approx(5.0)

    def test_it_stops_when_the_time_is_over(self) -> None:
        ticks = self.clock_of([0.6, 0.6])
        asked: list[int] = []
        assert latency_p99_ms(asked.append, 7, 200, clock=lambda: next(ticks)) == pytest.approx(600.0)
        assert asked == [0, 1, 2, 0, 1]

    def test_it_goes_through_the_rows_again_and_again(self) -> None:
        asked: list[int] = []
        latency_p99_ms(asked.append, 2, 5)
        assert asked == [0, 1, 0, 0, 1, 0, 1, 0]

    def test_without_rows_there_is_none(self) -> None:
        assert latency_p99_ms(lambda row: row, 0, 10) is None


def plan(*inputs: Input) -> FeaturePlan:
    return FeaturePlan(inputs=inputs, derived=(), features=(inputs[0].name,))


AGE = Input(name="age", type=ColumnType.NUMBER)
CITY = Input(name="city", type=ColumnType.CATEGORY, nullable=True)


class TestSignature:
    def test_nothing_in_production_is_nothing_to_break(self) -> None:
        assert signature_breaks(None, plan(AGE), (), ("a", "b")) == ()

    @pytest.mark.parametrize(
        ("before", "now"),
        [
            (plan(AGE, CITY), plan(AGE, CITY)),
            (plan(AGE, CITY), plan(CITY, AGE)),
            (plan(AGE, CITY), plan(AGE)),
            (plan(AGE), plan(AGE, CITY)),
            (plan(AGE), plan(Input(name="age", type=ColumnType.NUMBER, nullable=True))),
            (plan(Input(name="age", type=ColumnType.INTEGER)), plan(AGE)),
        ],
    )
    def test_what_clients_can_go_on_with_is_no_break(self, before: FeaturePlan, now: FeaturePlan) -> None:
        assert signature_breaks(before, now, ("a", "b"), ("b", "a", "c")) == ()

    @pytest.mark.parametrize(
        ("before", "now", "sentence"),
        [
            (plan(CITY), plan(CITY, AGE), "the input 'age' is new and may not be null"),
            (
                plan(AGE),
                plan(Input(name="age", type=ColumnType.CATEGORY)),
                "the input 'age' was of type number and is now of type category",
            ),
            (
                plan(AGE),
                plan(Input(name="age", type=ColumnType.INTEGER)),
                "the input 'age' was of type number and is now of type integer",
            ),
            (
                plan(CITY),
                plan(Input(name="city", type=ColumnType.CATEGORY)),
                "the input 'city' could be null and no longer can",
            ),
        ],
    )
    def test_a_broken_input_is_named(self, before: FeaturePlan, now: FeaturePlan, sentence: str) -> None:
        assert signature_breaks(before, now, (), ()) == (sentence,)

    def test_a_class_that_is_gone_is_named(self) -> None:
        assert signature_breaks(plan(AGE), plan(AGE), ("a", "b"), ("a", "c")) == ("the output class 'b' is gone",)

    def test_an_output_of_another_kind_is_named(self) -> None:
        assert signature_breaks(plan(AGE), plan(AGE), (), ("a", "b")) == ("the output was a number and is now a label",)
        assert signature_breaks(plan(AGE), plan(AGE), ("a", "b"), ()) == ("the output was a label and is now a number",)

    @given(st.permutations([AGE, CITY, Input(name="when", type=ColumnType.TIMESTAMP)]))
    def test_a_version_never_breaks_itself(self, inputs: list[Input]) -> None:
        of = FeaturePlan(inputs=tuple(inputs), derived=(), features=("age",))
        assert signature_breaks(of, of, ("a",), ("a",)) == ()
