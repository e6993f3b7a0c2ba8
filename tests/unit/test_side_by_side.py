"""Two real versions answer recorded rows side by side: what is refused is named by kind, in no order of files."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.model_package import ModelPackage, load_package
from release_platform.domain.features import ColumnType, FeaturePlan, Input
from release_platform.domain.metrics import Task
from release_platform.domain.windows import EVERY_SLICE
from release_platform.side_by_side import WARM_UP, Told, ask, ask_both, chosen_rows
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier, manifest_of

RADIUS, TEXTURE, AREA = CANCER_INPUTS
ROW = {RADIUS: 14.0, TEXTURE: 20.0, AREA: 600.0}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelPackage, ModelPackage]:
    """A classifier, and one that was fitted on a tenth of the rows."""
    root = tmp_path_factory.mktemp("packages")
    folders = [build_linear_classifier(root / str(n), n_rows=n) for n in (569, 57)]
    first, second = (load_package(folder, manifest_of(folder)) for folder in folders)
    return first, second


@pytest.fixture
def frame() -> pd.DataFrame:
    random = np.random.default_rng(3)
    n = 60
    columns = {RADIUS: random.normal(14, 4, n), TEXTURE: random.normal(20, 4, n), AREA: random.normal(600, 300, n)}
    return pd.DataFrame({**columns, "prediction_id": [f"a-{i // 2}" for i in range(n)]})


class Stubborn:
    """An engine that fails, or answers what it is told."""

    def __init__(self, answer: float | None = None) -> None:
        self._answer = answer

    def predict(self, features: object) -> np.ndarray:
        if self._answer is None:
            raise RuntimeError("no")
        return np.array([[self._answer, self._answer]])

    predict_matrix = predict


class TestAsking:
    def test_a_whole_row_is_answered_and_timed(self, packages: tuple[ModelPackage, ModelPackage]) -> None:
        ticks: Iterator[int] = count()
        found = ask(packages[0], ROW, timer=lambda: float(next(ticks)))
        assert found.answer in packages[0].classes
        assert (found.refusal, found.ms) == ("", 1000.0)

    @pytest.mark.parametrize(
        ("row", "refusal"),
        [
            ({RADIUS: 14.0, TEXTURE: 20.0}, f"absent column: {AREA}"),
            ({**ROW, RADIUS: None}, f"missing value: {RADIUS}"),
            ({**ROW, TEXTURE: "much"}, f"wrong value: {TEXTURE}"),
            ({**ROW, TEXTURE: True}, f"wrong value: {TEXTURE}"),
        ],
    )
    def test_a_row_that_a_client_could_not_send_is_refused_by_kind(
        self, packages: tuple[ModelPackage, ModelPackage], row: dict, refusal: str
    ) -> None:
        found = ask(packages[0], row)
        assert (found.answer, found.refusal) == (None, refusal)

    @pytest.mark.parametrize(("engine", "refusal"), [(None, "failed: RuntimeError"), (np.nan, "not finite")])
    def test_a_version_that_fails_or_has_no_number_refuses_too(
        self, packages: tuple[ModelPackage, ModelPackage], engine: float | None, refusal: str
    ) -> None:
        assert ask(replace(packages[0], engine=Stubborn(engine)), ROW).refusal == refusal


class TestBoth:
    def test_flips_are_counted_over_what_both_answer(
        self, packages: tuple[ModelPackage, ModelPackage], frame: pd.DataFrame
    ) -> None:
        rows = chosen_rows(frame, CANCER_INPUTS)
        told = ask_both(*packages, [*rows, {**ROW, RADIUS: None}])
        (every,) = told.flips("cancer", "2")
        wrong = sum(ask(packages[0], row).answer != ask(packages[1], row).answer for row in rows)
        assert (every.slice, every.pairs, sum(n for _, n in every.flips)) == (EVERY_SLICE, 60, wrong)
        assert wrong > 0
        assert (told.n_answered, told.n_refused) == (60, 0)
        assert [dict(one) for one in told.refused] == [{f"missing value: {RADIUS}": 1}] * 2
        assert [len(times) for times in told.ms] == [60, 60]

    def test_a_row_that_only_the_candidate_refuses_is_counted_as_such(
        self, packages: tuple[ModelPackage, ModelPackage], frame: pd.DataFrame
    ) -> None:
        extra = Input(name="income", type=ColumnType.NUMBER)
        plan = FeaturePlan(inputs=(*packages[1].plan.inputs, extra), derived=(), features=packages[1].plan.features)
        told = ask_both(packages[0], replace(packages[1], plan=plan), chosen_rows(frame, [*CANCER_INPUTS, "income"]))
        assert (told.n_answered, told.n_refused) == (60, 60)
        assert dict(told.refused[1]) == {"absent column: income": 60}
        assert told.flips("cancer", "2") == ()
        assert told.latency_ms(0) == {}

    def test_they_take_turns_in_being_first(
        self, packages: tuple[ModelPackage, ModelPackage], frame: pd.DataFrame
    ) -> None:
        asked: list[str] = []

        class Recorded:
            def __init__(self, name: str, package: ModelPackage) -> None:
                self._name, self._engine = name, package.engine

            def predict(self, features: object) -> np.ndarray:
                asked.append(self._name)
                return self._engine.predict(features)  # type: ignore[arg-type]

            def predict_matrix(self, features: np.ndarray) -> np.ndarray:
                asked.append(self._name)
                return self._engine.predict_matrix(features)

        first, second = (replace(one, engine=Recorded(name, one)) for name, one in zip("sc", packages, strict=True))
        ask_both(first, second, chosen_rows(frame, CANCER_INPUTS, 4))
        assert "".join(asked[8:]) == "sccssccs"
        assert WARM_UP >= 4

    def test_a_slice_with_too_many_values_is_left_out_whole(self) -> None:
        told = Told()
        told.pairs = [((f"city={place}", f"sex={place % 2}"), None if place % 3 else "a -> b") for place in range(30)]
        assert {one.slice for one in told.flips("m", "2")} == {EVERY_SLICE, "sex=0", "sex=1"}


class TestRows:
    def test_the_order_of_files_and_the_place_in_them_do_not_matter(self, frame: pd.DataFrame) -> None:
        shuffled = frame.sample(frac=1.0, random_state=1).reset_index(drop=True)
        assert chosen_rows(shuffled, CANCER_INPUTS, 20) == chosen_rows(frame, CANCER_INPUTS, 20)

    def test_values_are_as_clients_sent_them(self) -> None:
        moment = pd.Timestamp("2026-01-01T12:00:00")
        frame = pd.DataFrame({"n": [1.5, np.nan], "c": ["x", None], "b": [True, None], "t": [moment, pd.NaT]})
        found = chosen_rows(frame, ["n", "c", "b", "t", "unknown"])
        assert {"n": 1.5, "c": "x", "b": True, "t": "2026-01-01T12:00:00"} in found
        assert {"n": None, "c": None, "b": None, "t": None} in found

    def test_a_table_without_rows_gives_none(self) -> None:
        assert chosen_rows(pd.DataFrame(), CANCER_INPUTS) == []


def test_a_regression_answers_numbers_that_agree_within_a_tenth(packages: tuple[ModelPackage, ModelPackage]) -> None:
    class Value(Stubborn):
        def predict_matrix(self, features: object) -> np.ndarray:
            return np.array([self._answer])

    first, near, far = (replace(packages[0], task=Task.REGRESSION, engine=Value(v)) for v in (10.0, 10.5, 12.0))
    assert ask_both(first, near, [ROW]).flips("m", "2")[0].share == 0
    assert ask_both(first, far, [ROW]).flips("m", "2")[0].flips == (("higher", 1),)
