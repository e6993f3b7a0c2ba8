"""The batcher keeps order and length, answers everybody whom it took, and refuses at once when it is full."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching import Batcher
from serving.errors import DeadlinePassed, InvalidInput, Overloaded, Problem

_T = TypeVar("_T")
Item = tuple[int, int]
"""Its number and its rows."""


class Steps(Executor):
    """An executor whose calls run when a test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor`."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self.calls.append((future, lambda: fn(*args, **kwargs)))
        return future

    def step(self, which: int = 0) -> None:
        """Runs one of the calls that wait."""
        future, call = self.calls.pop(which % len(self.calls))
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - the executor's caller is told
            future.set_exception(error)


class Room:
    """A batcher, its steps, and every batch that it computed. An item of a negative number is at fault."""

    def __init__(self, *, n_at_once: int = 1, max_rows: int = 8, max_waiting: int = 100, within_s: float = 60) -> None:
        self.steps = Steps()
        self.batches: list[list[Item]] = []
        self.batcher: Batcher[Item, int] = Batcher(
            self._compute,
            pool=self.steps,
            n_at_once=n_at_once,
            max_rows=max_rows,
            max_waiting=max_waiting,
            within_s=within_s,
        )

    def _compute(self, items: Sequence[Item]) -> Sequence[int | Problem]:
        self.batches.append(list(items))
        return [InvalidInput("bad") if number < 0 else number for number, _ in items]

    def ask(self, number: int, n_rows: int = 1) -> "asyncio.Task[int]":
        """Asks for an item."""
        return asyncio.create_task(self.batcher.run((number, n_rows), n_rows))

    async def finish(self) -> None:
        """Lets everything be computed that waits."""
        await asyncio.sleep(0)
        while self.steps.calls:
            self.steps.step()
            await settled()


async def settled() -> None:
    """Lets the event loop do all that is ready: futures of threads come back through it."""
    for _ in range(4):
        await asyncio.sleep(0)


def run(scenario: Callable[[], Awaitable[_T]]) -> _T:
    async def main() -> _T:
        return await scenario()

    return asyncio.run(main())


_STEP = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 12)),
    st.tuples(st.just("bad"), st.integers(1, 12)),
    st.tuples(st.just("compute"), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
)


@settings(max_examples=150)
@given(st.lists(_STEP, max_size=40), st.integers(1, 3), st.integers(0, 6))
def test_whatever_arrives_when_each_gets_its_own_answer_and_nobody_waits_for_ever(
    script: list[tuple[str, int]], n_at_once: int, max_waiting: int
) -> None:
    async def scenario() -> None:
        room = Room(n_at_once=n_at_once, max_waiting=max_waiting)
        asked: dict[int, asyncio.Task[int]] = {}
        for what, value in script:
            if what in {"ask", "bad"}:
                number = (1 if what == "ask" else -1) * (len(asked) + 1)
                asked[number] = room.ask(number, value)
            elif what == "compute" and room.steps.calls:
                room.steps.step(value)
            elif what == "cancel" and asked:
                list(asked.values())[value % len(asked)].cancel()
            await settled()
            assert len(room.steps.calls) <= n_at_once
            assert room.batcher.n_waiting <= max_waiting
        await room.finish()
        _check(room, asked, in_order=n_at_once == 1)

    run(scenario)


def _check(room: Room, asked: dict[int, "asyncio.Task[int]"], *, in_order: bool) -> None:
    computed = [number for batch in room.batches for number, _ in batch]
    for numbers in [computed] if in_order else [[number for number, _ in batch] for batch in room.batches]:
        assert [abs(number) for number in numbers] == sorted(map(abs, numbers))  # as they arrived
    assert len(set(computed)) == len(computed)
    for batch in room.batches:
        assert len(batch) == 1 or sum(n_rows for _, n_rows in batch) <= 8
    for number, task in asked.items():
        assert task.done()
        if task.cancelled():
            continue
        error = task.exception()
        if isinstance(error, Overloaded):
            assert number not in computed
        elif number < 0:
            assert isinstance(error, InvalidInput)
        else:
            assert task.result() == number
            assert number in computed


@pytest.mark.parametrize(("n_waiting", "refused"), [(2, False), (3, True)])
def test_one_more_than_may_wait_is_refused_at_once_and_with_a_time_to_come_again(n_waiting: int, refused: bool) -> None:
    async def scenario() -> None:
        room = Room(max_waiting=3)
        taken = [room.ask(number) for number in range(1 + n_waiting)]  # one runs, the others wait
        await settled()
        last = room.ask(99)
        await settled()
        if refused:
            error = last.exception()
            assert isinstance(error, Overloaded)
            assert (error.status, error.headers) == (503, {"retry-after": "2"})
        assert last.done() is refused
        await room.finish()
        assert [task.result() for task in taken] == list(range(1 + n_waiting))
        assert refused or last.result() == 99

    run(scenario)


def test_whoever_finds_a_thread_free_is_computed_alone_and_at_once() -> None:
    async def scenario() -> None:
        room = Room(n_at_once=2)
        first, second = room.ask(1), room.ask(2)
        await asyncio.sleep(0)
        assert len(room.steps.calls) == 2
        await room.finish()
        assert room.batches == [[(1, 1)], [(2, 1)]]
        assert (first.result(), second.result()) == (1, 2)

    run(scenario)


@pytest.mark.parametrize("when", ["before its batch", "during its batch"])
def test_a_client_that_goes_away_does_not_harm_its_batch(when: str) -> None:
    async def scenario() -> None:
        room = Room()
        tasks = [room.ask(number) for number in (1, 2, 3, 4)]
        await settled()
        if when == "during its batch":
            room.steps.step()
            await settled()
        tasks[2].cancel()
        await settled()
        await room.finish()
        assert tasks[2].cancelled()
        assert [tasks[i].result() for i in (0, 1, 3)] == [1, 2, 4]
        assert ((3, 1) in room.batches[1]) is (when == "during its batch")

    run(scenario)


def test_who_went_away_holds_no_place_among_those_who_wait() -> None:
    async def scenario() -> None:
        room = Room(max_waiting=2)
        first, *gone = [room.ask(number) for number in (1, 2, 3)]
        await settled()
        for task in gone:
            task.cancel()
        await settled()
        second, third, beyond = [room.ask(number) for number in (4, 5, 6)]
        await room.finish()
        assert [task.result() for task in (first, second, third)] == [1, 4, 5]
        assert isinstance(beyond.exception(), Overloaded)

    run(scenario)


def test_what_computes_nothing_is_told_to_each_and_the_next_batch_is_computed() -> None:
    async def scenario() -> None:
        room = Room()
        first = room.ask(1)
        await settled()
        room.steps.calls[0][0].set_exception(RuntimeError("no memory"))
        room.steps.calls.clear()
        second = room.ask(2)
        await settled()
        await room.finish()
        assert isinstance(first.exception(), RuntimeError)
        assert second.result() == 2

    run(scenario)


def test_who_waits_too_long_is_told_and_is_not_computed_any_more() -> None:
    async def scenario() -> None:
        room = Room(within_s=0.01)
        first, second = room.ask(1), room.ask(2)
        await asyncio.wait([first, second])
        assert isinstance(first.exception(), DeadlinePassed)
        assert isinstance(second.exception(), DeadlinePassed)
        await room.finish()
        assert room.batches == [[(1, 1)]]

    run(scenario)
