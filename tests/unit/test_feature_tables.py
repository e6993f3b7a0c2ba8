"""The feature table: as serving computes features, with labels, a split without leaks, and refusals."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from release_platform.domain.data_spec import (
    ColumnContract,
    ContractSpec,
    SourceSpec,
    SplitSpec,
    SplitStrategy,
    TargetSpec,
)
from release_platform.domain.errors import DataError
from release_platform.domain.features import MISSING, ColumnType, Operation, as_column
from release_platform.domain.gate_spec import GateSpec
from release_platform.domain.metrics import Task
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import DerivedSpec, EstimatorSpec
from release_platform.pipeline.contract import conform
from release_platform.pipeline.features import (
    GOLDEN_ROWS,
    HELD_OUT,
    TARGET,
    build_feature_table,
    golden_inputs,
    plan_columns,
    read_features,
)

N_ROWS = 200
CONTRACT = {
    "id": ColumnContract(type=ColumnType.INTEGER),
    "x": ColumnContract(type=ColumnType.NUMBER, nullable=True),
    "n": ColumnContract(type=ColumnType.INTEGER, nullable=True),
    "flag": ColumnContract(type=ColumnType.BOOLEAN, nullable=True),
    "town": ColumnContract(type=ColumnType.CATEGORY, nullable=True),
    "at": ColumnContract(type=ColumnType.TIMESTAMP, nullable=True),
    "y": ColumnContract(type=ColumnType.CATEGORY, nullable=True),
}


def spec(task: Task = Task.BINARY, kind: ColumnType = ColumnType.CATEGORY, **changes: Any) -> ModelSpec:
    metric = {Task.BINARY: "roc_auc", Task.MULTICLASS: "accuracy", Task.REGRESSION: "r2"}[task]
    given_values: dict[str, Any] = {
        "name": "m",
        "task": task,
        "owner": "team:ml",
        "source": SourceSpec(csv="x.csv"),
        "contract": ContractSpec(columns={**CONTRACT, "y": ColumnContract(type=kind, nullable=True)}),
        "target": TargetSpec(column="y", positive="yes" if task is Task.BINARY else None),
        "estimator": EstimatorSpec(type="sklearn.linear_model.LogisticRegression"),
        "features": ("x", "n", "flag", "town", DerivedSpec(name="hour", operation=Operation.HOUR, of=("at",))),
        "gates": (GateSpec(name="floor", metric=metric, minimum=0.5),),
        "slices": ("town", "n", "flag"),
    }
    return ModelSpec(**(given_values | changes))


def raw(of: ModelSpec, n_rows: int = N_ROWS, **columns: Any) -> pd.DataFrame:
    rows = np.arange(n_rows)
    frame = pd.DataFrame(
        {
            "id": rows,
            "x": rows * 0.5,
            "n": rows % 7,
            "flag": rows % 2 == 0,
            "town": np.array(["Graz", "Linz", "Wien"])[rows % 3],
            "at": pd.Timestamp("2020-01-01") + pd.to_timedelta(rows, unit="h"),
            "y": np.array(["no", "yes", "no"])[rows % 3],
        }
    )
    for name, values in columns.items():
        frame[name] = values
    return conform(frame, of.contract, source="s")


def built(of: ModelSpec, **columns: Any) -> pd.DataFrame:
    return build_feature_table(raw(of, **columns), of)


class TestTable:
    def test_it_has_features_target_split_and_slices_in_a_fixed_order_of_snapshot_dtypes(self) -> None:
        assert {name: str(kind) for name, kind in built(spec()).dtypes.items()} == {
            "x": "float64",
            "n": "float64",
            "flag": "float64",
            "town": "string",
            "hour": "float64",
            "__target__": "string",
            "__held_out__": "boolean",
            "__slice__town": "string",
            "__slice__n": "string",
            "__slice__flag": "string",
        }

    def test_it_reads_back_as_scikit_learn_wants_it(self) -> None:
        found = read_features(built(spec()))
        assert [str(kind) for kind in found.features.dtypes] == ["float64", "float64", "float64", "object", "float64"]
        assert found.target.dtype == object
        assert found.held_out.dtype == bool
        assert set(found.slices) == {"town", "n", "flag"}
        assert set(found.slices["flag"]) == {"true", "false"}
        assert {len(values) for values in found.slices_of(found.held_out).values()} == {int(found.held_out.sum())}

    def test_missing_values_are_nan_in_numbers_and_a_word_in_text(self) -> None:
        first = np.arange(N_ROWS) == 0
        of = spec()
        changes = {name: raw(of)[name].mask(first) for name in ("x", "n", "flag", "town", "at")}
        found = read_features(built(of, **changes))
        assert found.features.iloc[0, [0, 1, 2, 4]].isna().all()
        assert found.features["town"][0] == MISSING
        assert {found.slices[name][0] for name in found.slices} == {MISSING}
        assert found.features.iloc[1:].notna().all(axis=None)

    def test_features_are_those_that_serving_computes_from_json(self) -> None:
        of = spec()
        frame = raw(of, x=np.where(np.arange(N_ROWS) % 5 == 0, np.nan, 0.1))
        table = build_feature_table(frame, of)
        rows = np.flatnonzero(table[HELD_OUT].to_numpy(dtype=bool))
        sent = golden_inputs(frame, table, of)
        served = of.plan.apply({c.name: as_column(c, sent[c.name]) for c in of.plan.inputs})
        trained = of.plan.apply(plan_columns(frame, of.plan))
        assert len(sent["x"]) == min(GOLDEN_ROWS, len(rows))
        assert None in sent["x"]
        chosen = [i for i in rows if frame["at"][i].isoformat() + "+00:00" in sent["at"]]
        for name, values in served.items():
            np.testing.assert_array_equal(values, trained[name][chosen])

    def test_golden_inputs_are_json(self) -> None:
        of = spec()
        frame = raw(of)
        types = {name: {type(v) for v in values} for name, values in golden_inputs(frame, built(of), of).items()}
        assert types == {"x": {float}, "n": {int}, "flag": {bool}, "town": {str}, "at": {str}}


class TestLabels:
    @pytest.mark.parametrize(
        ("kind", "values", "positive", "labels"),
        [
            (ColumnType.CATEGORY, ["no", "yes"], "yes", {"no", "yes"}),
            (ColumnType.BOOLEAN, [False, True], True, {"false", "true"}),
            (ColumnType.INTEGER, [0, 1], 1, {"0", "1"}),
            (ColumnType.NUMBER, [0.0, 1.0], 1, {"0", "1"}),
        ],
    )
    def test_classes_are_text(self, kind: ColumnType, values: list[Any], positive: Any, labels: set[str]) -> None:
        of = spec(kind=kind, target=TargetSpec(column="y", positive=positive))
        assert set(built(of, y=np.array(values * (N_ROWS // 2)))[TARGET]) == labels

    def test_a_regression_keeps_numbers(self) -> None:
        of = spec(Task.REGRESSION, ColumnType.INTEGER)
        assert read_features(built(of, y=np.arange(N_ROWS))).target.tolist() == list(range(N_ROWS))


class TestSplit:
    def test_it_is_the_same_for_the_same_seed_and_another_for_another(self) -> None:
        masks = [built(spec(seed=seed))[HELD_OUT].to_numpy(dtype=bool) for seed in (1, 1, 2)]
        assert (masks[0] == masks[1]).all()
        assert (masks[0] != masks[2]).any()

    def test_a_random_split_keeps_the_share_of_each_class(self) -> None:
        labels = np.array(["yes"] * 40 + ["no"] * 160)
        table = built(spec(), y=labels)
        assert table[HELD_OUT].groupby(labels).sum().to_dict() == {"no": 40, "yes": 10}

    def test_a_time_split_holds_out_the_latest_rows(self) -> None:
        of = spec(split=SplitSpec(strategy=SplitStrategy.TIME, column="at"))
        held_out = built(of)[HELD_OUT].to_numpy(dtype=bool)
        assert held_out.tolist() == [False] * 150 + [True] * 50

    @given(st.lists(st.integers(0, 9), min_size=N_ROWS, max_size=N_ROWS), st.floats(0.2, 0.8))
    @settings(max_examples=30)
    def test_one_instant_is_never_on_both_sides(self, days: list[int], share: float) -> None:
        of = spec(split=SplitSpec(strategy=SplitStrategy.TIME, column="n", test_share=share))
        frame = raw(of, n=np.array(days))
        try:
            held_out = build_feature_table(frame, of)[HELD_OUT].to_numpy(dtype=bool)
        except DataError:
            return
        assert max(np.array(days)[~held_out]) < min(np.array(days)[held_out])

    def test_a_group_is_never_on_both_sides(self) -> None:
        groups = np.arange(N_ROWS) // 5 * 1_000
        of = spec(split=SplitSpec(strategy=SplitStrategy.GROUP, column="id"))
        held_out = built(of, id=groups)[HELD_OUT].to_numpy(dtype=bool)
        assert held_out.sum() == N_ROWS // 4
        assert set(groups[held_out]).isdisjoint(groups[~held_out])

    @pytest.mark.parametrize(
        ("split", "key", "is_ordered"),
        [
            pytest.param(SplitSpec(), (), True, id="random, by position"),
            pytest.param(SplitSpec(), ("id", "town"), False, id="random, by key"),
            pytest.param(SplitSpec(strategy=SplitStrategy.GROUP, column="town"), (), False, id="group"),
        ],
    )
    @pytest.mark.parametrize("seed", [0, 7])
    def test_rows_keep_their_side_when_others_come_to_them(
        self, split: SplitSpec, key: tuple[str, ...], is_ordered: bool, seed: int
    ) -> None:
        rng, n_rows, n_known = np.random.default_rng(4), 4_400, 4_000
        of = spec(
            split=split,
            features=("x",),
            seed=seed,
            contract=replace(spec().contract, unique_together=key),
        )
        columns = {"x": rng.normal(size=n_rows), "town": [f"t{at}" for at in rng.integers(0, 440, n_rows)]}
        more = raw(of, n_rows, **columns, y=rng.choice(["no", "yes"], n_rows))
        known = more.head(n_known)
        if not is_ordered:
            more = more.sample(frac=1, random_state=1).reset_index(drop=True)
        before, after = (
            build_feature_table(rows, of)[HELD_OUT].to_numpy(dtype=bool)[np.argsort(rows["id"])]
            for rows in (known, more)
        )
        was_trained_on = after[:n_known] & ~before
        assert was_trained_on.sum() < 0.05 * after.sum()  # drawn anew it would be three quarters
        assert 0.22 < before.mean() < 0.28

    def test_another_seed_holds_out_other_rows(self) -> None:
        one, other = (built(spec(features=("x",), seed=seed))[HELD_OUT].to_numpy(dtype=bool) for seed in (0, 1))
        assert 0.1 < (one & other).sum() / one.sum() < 0.5


class TestCopies:
    COPIED: dict[str, Any] = {"id": 1, "x": 1.0, "n": 1, "flag": None, "town": None, "at": pd.Timestamp("2020-01-01")}  # noqa: RUF012

    LABELS = ["no", "yes"] * 100

    def test_copies_across_the_split_are_counted(self) -> None:
        with pytest.raises(DataError, match=r"50 held-out row\(s\) are exact copies of training rows, first row \d+"):
            built(spec(), **self.COPIED, y=self.LABELS)

    def test_copies_may_be_allowed(self) -> None:
        built(spec(features=("x",), split=SplitSpec(allow_duplicates=True)), **self.COPIED, y=self.LABELS)

    @pytest.mark.parametrize("name", ["id", "x", "n", "town", "at"])
    def test_one_different_value_makes_a_row_no_copy(self, name: str) -> None:
        different = {
            "id": np.arange(N_ROWS),
            "x": np.arange(N_ROWS) / 7,
            "n": np.arange(N_ROWS),
            "town": [f"t{i}" for i in range(N_ROWS)],
            "at": pd.date_range("2020-01-01", periods=N_ROWS, freq="us"),
        }
        built(spec(features=("x",)), **{**self.COPIED, name: different[name]}, y=self.LABELS)

    def test_a_time_or_group_split_cannot_have_them(self) -> None:
        days = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(N_ROWS) // 50, unit="D")
        copied = {**self.COPIED, "at": days, "id": np.arange(N_ROWS) // 50}
        for strategy, column in ((SplitStrategy.TIME, "at"), (SplitStrategy.GROUP, "id")):
            of = spec(split=SplitSpec(strategy=strategy, column=column), features=("x", "n"))
            assert built(of, **copied, y=self.LABELS)[HELD_OUT].sum() == 50


MINUTE = np.arange(N_ROWS)


@pytest.mark.parametrize(
    ("changes", "columns", "told"),
    [
        ({}, {"y": None}, r"the target 'y' is missing in 200 of 200 row\(s\), first in row 1, 2, 3, 4, 5"),
        ({}, {"y": pd.Series("no", index=MINUTE).mask(MINUTE == 7)}, r"missing in 1 of 200 row\(s\), first in row 8"),
        ({}, {"y": "yes"}, "all rows have one class, 'yes'"),
        ({}, {"y": np.array(["a", "b", "yes", "c"])[MINUTE % 4]}, "has 4 classes, 'a', 'b', 'c', 'yes'"),
        ({}, {"y": np.array(["a", "b"])[MINUTE % 2]}, "no row has the positive label 'yes'; the labels are 'a', 'b'"),
        ({}, {"x": np.nan}, r"the feature\(s\) x have no value in any training row"),
        ({}, {"town": None, "x": np.nan}, r"the feature\(s\) x, town have no value"),
        ({"split": SplitSpec(test_share=0.05)}, {}, r"190 training and 10 held-out row\(s\), fewer than 20"),
        ({"split": SplitSpec(test_share=0.95)}, {}, r"10 training and 190 held-out row\(s\), fewer than 20"),
        (
            {"split": SplitSpec(strategy=SplitStrategy.TIME, column="at")},
            {"y": np.where(MINUTE < 150, "no", "yes")},
            r"no training row has the class\(es\) 'yes'",
        ),
        (
            {"split": SplitSpec(strategy=SplitStrategy.TIME, column="at")},
            {"at": pd.Timestamp("2020-01-01")},
            "all rows have the same 'at'",
        ),
        (
            {"split": SplitSpec(strategy=SplitStrategy.TIME, column="at")},
            {"at": pd.Series(pd.Timestamp("2020-01-01"), index=range(N_ROWS)).mask(MINUTE == 3)},
            r"1 row\(s\) have no 'at', which the time split needs; the first is row 4",
        ),
        ({"split": SplitSpec(strategy=SplitStrategy.TIME, column="town")}, {}, "'town' is a category"),
        (
            {"split": SplitSpec(strategy=SplitStrategy.GROUP, column="town")},
            {"town": "Graz"},
            "all rows are of one group",
        ),
        (
            {"split": SplitSpec(strategy=SplitStrategy.GROUP, column="town")},
            {"town": None},
            "have no 'town', which the group split needs",
        ),
    ],
)
def test_data_that_no_model_can_be_judged_on_is_refused(changes: Any, columns: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        built(spec(**changes), **columns)


def test_ten_rows_are_refused() -> None:
    of = spec()
    with pytest.raises(DataError, match="fewer than 20"):
        build_feature_table(raw(of, 10), of)


def test_a_constant_regression_target_is_refused() -> None:
    with pytest.raises(DataError, match="the target 'y' is 3 in all training rows"):
        built(spec(Task.REGRESSION, ColumnType.NUMBER), y=3.0)


def test_a_class_of_one_row_stays_in_training() -> None:
    labels = np.array(["rare"] + ["a", "b"] * 99 + ["a"])
    found = read_features(built(spec(Task.MULTICLASS), y=labels))
    assert not found.held_out[0]
