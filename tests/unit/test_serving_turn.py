"""Quick requests of one turn of the event loop are computed together, and each is given its own answer."""

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.adapters.model_package import load_package
from release_platform.domain.prediction import Predictions
from serving.engine import BATCHED_ROWS, Engine
from serving.errors import NonFinitePrediction, PredictionFailed, Problem
from serving.metrics import Metrics
from serving.models import Live
from serving.turn import Turn
from serving.warmup import INLINE_S, is_same_in_company, rows_within
from tests.fakes.packages import build_onnx_classifier, manifest_of
from tests.unit.test_serving_engine import loaded_with

A, B = "a", "b"


class Kitchen:
    """Doubles numbers, and remembers which were doubled together."""

    def __init__(self, *, max_rows: int = 8) -> None:
        self.together: list[list[int]] = []
        self.got: list[tuple[int, int]] = []
        self.turn: Turn[int, int] = Turn(self._double, max_rows=max_rows)

    def ask(self, key: str, number: int, n_rows: int = 1) -> None:
        def deliver(result: int | Problem) -> None:
            assert not isinstance(result, Problem)
            self.got.append((number, result))

        self.turn.ask(key, number, n_rows, deliver)

    def _double(self, numbers: Sequence[int]) -> list[int]:
        self.together.append(list(numbers))
        return [2 * number for number in numbers]


def test_what_is_asked_in_one_turn_is_computed_when_it_ends() -> None:
    async def turns() -> Kitchen:
        kitchen = Kitchen()
        for number in (1, 2, 3):
            kitchen.ask(A, number)
        assert kitchen.got == []
        await asyncio.sleep(0)
        kitchen.ask(A, 4)
        await asyncio.sleep(0)
        return kitchen

    kitchen = asyncio.run(turns())
    assert kitchen.together == [[1, 2, 3], [4]]
    assert kitchen.got == [(1, 2), (2, 4), (3, 6), (4, 8)]


def test_an_end_before_the_turn_leaves_nothing_open_and_nothing_is_computed_twice() -> None:
    async def turns() -> Kitchen:
        kitchen = Kitchen()
        kitchen.ask(A, 1)
        kitchen.turn.end()
        assert kitchen.got == [(1, 2)]
        kitchen.ask(A, 2)
        await asyncio.sleep(0)
        return kitchen

    assert asyncio.run(turns()).together == [[1], [2]]


@given(asked=st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 8)), max_size=40))
def test_each_is_answered_once_with_its_own_kind_and_within_the_limit(asked: list[tuple[str, int]]) -> None:
    async def turns() -> Kitchen:
        kitchen = Kitchen(max_rows=8)
        for number, (key, n_rows) in enumerate(asked):
            kitchen.ask(key, number, n_rows)
        await asyncio.sleep(0)
        return kitchen

    kitchen = asyncio.run(turns())
    assert sorted(kitchen.got) == [(number, 2 * number) for number in range(len(asked))]
    for together in kitchen.together:
        assert len({asked[number][0] for number in together}) == 1
        assert sum(asked[number][1] for number in together) <= 8


# The engine's turn


def answers_of(values: Sequence[float], predict, *, same_in_company: bool = True) -> tuple[list[object], list[int]]:
    """Returns what the engine delivers for one row each, and how many rows each call of the model had."""
    sizes: list[int] = []

    def counted(columns):
        sizes.append(len(columns["x"]))
        return predict(columns)

    loaded = loaded_with(counted, same_in_company=same_in_company)
    engine = Engine(n_threads=1, max_waiting=1, metrics=Metrics(Live()))
    delivered: list[object] = []

    async def turn() -> None:
        for value in values:
            engine.compute_soon(loaded, {"x": np.array([value])}, delivered.append)
        await asyncio.sleep(0)

    asyncio.run(turn())
    engine.close()
    return delivered, sizes


def doubled(columns) -> Predictions:
    if (columns["x"] == 13).any():
        raise RuntimeError("inside the model")
    return Predictions(values=np.where(columns["x"] == 7, np.nan, 2 * columns["x"]))


def test_rows_are_computed_together_and_shared_out() -> None:
    delivered, sizes = answers_of([1.0, 2.0, 3.0], doubled)
    assert [one.values.tolist() for one in delivered] == [[2.0], [4.0], [6.0]]
    assert sizes == [3]


@pytest.mark.parametrize(("bad", "error"), [(7.0, NonFinitePrediction), (13.0, PredictionFailed)])
def test_one_that_fails_does_not_take_its_company_down(bad: float, error: type[Problem]) -> None:
    delivered, _ = answers_of([1.0, bad, 3.0], doubled)
    assert [type(one) for one in delivered] == [Predictions, error, Predictions]
    assert delivered[2].values.tolist() == [6.0]


def test_a_model_whose_answers_depend_on_company_has_none() -> None:
    _, sizes = answers_of([1.0, 2.0, 3.0], doubled, same_in_company=False)
    assert sizes == [1, 1, 1]


def test_who_settles_has_the_answer_at_once_and_others_theirs_when_the_turn_ends() -> None:
    loaded = loaded_with(doubled, same_in_company=True)
    engine = Engine(n_threads=1, max_waiting=1, metrics=Metrics(Live()))
    delivered: list[object] = []

    async def turn() -> int:
        engine.compute_soon(loaded, {"x": np.array([7.0])}, delivered.append)
        engine.settle()
        engine.compute_soon(loaded, {"x": np.array([1.0])}, delivered.append)
        n_now = len(delivered)
        await asyncio.sleep(0)
        return n_now

    assert asyncio.run(turn()) == 1
    assert type(delivered[0]) is NonFinitePrediction
    assert [one.values.tolist() for one in delivered[1:]] == [[2.0]]


def test_many_rows_of_one_request_are_computed_alone() -> None:
    engine = Engine(n_threads=1, max_waiting=1, metrics=Metrics(Live()))
    delivered: list[Predictions | Problem] = []
    loaded = loaded_with(doubled, same_in_company=True)

    async def turn() -> None:
        engine.compute_soon(loaded, {"x": np.ones(BATCHED_ROWS + 1)}, delivered.append)

    asyncio.run(turn())
    assert len(delivered) == 1


# What a model is found to be like before it goes live


def test_a_quick_model_is_found_to_be_so_whatever_else_goes_on(tmp_path) -> None:
    folder = build_onnx_classifier(tmp_path / "package")
    package = load_package(folder, manifest_of(folder))
    stop = threading.Event()
    threads = [threading.Thread(target=hold_the_interpreter, args=(stop,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        found = [rows_within(package, INLINE_S) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert min(found) > 0  # it predicts in microseconds; to be given the interpreter takes it ten milliseconds


def hold_the_interpreter(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(1000))


@pytest.mark.parametrize(("engine", "is_same"), [("onnx", True), ("skops", False)])
def test_models_in_onnx_are_asked_row_by_row_and_together(tmp_path, engine: str, is_same: bool) -> None:
    folder = build_onnx_classifier(tmp_path / "package", engine=engine)
    assert is_same_in_company(load_package(folder, manifest_of(folder))) == is_same


def test_one_whose_last_bit_depends_on_the_others_is_found(tmp_path) -> None:
    folder = build_onnx_classifier(tmp_path / "package")
    package = load_package(folder, manifest_of(folder))

    def with_company(inputs) -> Predictions:
        found = package.predict(inputs)
        many = len(found.values) > 3
        return Predictions(values=found.values, probabilities=found.probabilities * (1 + 1e-15 * many))

    spoilt = SimpleNamespace(engine_name="onnx", golden_inputs=package.golden_inputs, predict=with_company)
    assert not is_same_in_company(spoilt)
