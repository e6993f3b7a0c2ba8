"""Workers ask each other; who is gone or silent holds nobody up."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from serving.siblings import Siblings


def worker(folder, name, answer=None, **settings):
    return Siblings(folder, name, answer or (lambda question: {"of": name, "asked": question["what"]}), **settings)


def run(scenario):
    return asyncio.run(scenario())


def test_each_other_worker_answers_and_one_that_ended_is_gone(tmp_path):
    async def scenario():
        one, two, three = (worker(tmp_path, name) for name in ("one", "two", "three"))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(one.answering())
            await stack.enter_async_context(two.answering())
            async with three.answering():
                found = await one.ask_all({"what": "x"})
                assert two.has("three")
            return found, await one.ask_all({"what": "y"}), await two.ask("three", {"what": "z"})

    together, later, gone = run(scenario)
    assert together == ([{"of": "three", "asked": "x"}, {"of": "two", "asked": "x"}], 0)
    assert (later, gone) == (([{"of": "two", "asked": "y"}], 0), None)


def test_one_that_was_killed_leaves_a_socket_on_which_nobody_answers(tmp_path):
    async def scenario():
        dead = await asyncio.start_unix_server(lambda *_: None, tmp_path / "dead.sock")
        dead.close()
        assert (tmp_path / "dead.sock").exists()
        async with worker(tmp_path, "one").answering():
            return await worker(tmp_path, "one").ask_all({"what": "x"})

    assert run(scenario) == ([], 0)
    assert (tmp_path / "dead.sock").exists(), "who goes on as it makes its own there"


def test_one_that_is_silent_is_counted(tmp_path):
    async def scenario():
        asked_enough = asyncio.Event()

        async def hold(_, writer):
            await asked_enough.wait()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_unix_server(hold, tmp_path / "silent.sock"):
            found = await worker(tmp_path, "one", within_s=0.1).ask_all({"what": "x"})
            asked_enough.set()
            await asyncio.sleep(0.05)
        return found

    assert run(scenario) == ([], 1)


def test_a_question_that_cannot_be_answered_is_no_answer_and_the_worker_goes_on(tmp_path):
    def answer(question):
        return 1 / question["by"]

    async def scenario():
        async with worker(tmp_path, "one", answer).answering():
            other = worker(tmp_path, "two")
            return await other.ask("one", {"by": 0}), await other.ask("one", {"by": 2})

    assert run(scenario) == (None, 0.5)


def test_long_answers_come_whole(tmp_path):
    async def scenario():
        async with worker(tmp_path, "one", lambda _: ["x" * 1000] * 5000).answering():
            return await worker(tmp_path, "two").ask("one", {"what": "x"})

    assert run(scenario) == ["x" * 1000] * 5000


def test_an_answer_of_bytes_comes_as_it_is_and_one_that_is_not_whole_is_none(tmp_path):
    def whole(answer):
        if not answer.endswith(b"."):
            raise ValueError
        return answer

    async def scenario():
        answers = iter([b"no JSON.", b"no JS"])
        async with worker(tmp_path, "one", lambda _: next(answers)).answering():
            other = worker(tmp_path, "two")
            return [await other.ask_all({"what": "x"}, read=whole) for _ in range(2)]

    assert run(scenario) == [([b"no JSON."], 0), ([], 0)]


@pytest.mark.parametrize("folder", [None, "too/long"])
def test_where_no_socket_can_be_there_is_nobody_to_ask(tmp_path, folder):
    place = None if folder is None else tmp_path / ("long" * 40)
    if place is not None:
        place.mkdir()

    async def scenario():
        one = worker(place, "one")
        async with one.answering():
            return await one.ask_all({"what": "x"})

    assert run(scenario) == ([], 0)
