"""The event loop stays awake for a client that comes again at once, and for nobody else."""

import asyncio
from collections.abc import Callable

from serving.busy_poll import BusyPoll


class Loop:
    """Keeps what is to be called soon, and counts how often it came round."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.n_rounds = 0

    def call_soon(self, call: Callable[..., None], *given: object) -> None:
        self.soon.append(lambda: call(*given))

    def come_round(self) -> None:
        self.n_rounds += 1
        calls, self.soon = self.soon, []
        for call in calls:
            call()


class Day:
    """One server, whose clock shows what it is told."""

    def __init__(self, moment_s: float = 1.0) -> None:
        self.now = 100.0
        self.loop = Loop()
        self._poll = BusyPoll(moment_s, seconds=lambda: self.now)

    def request(self, *, after_s: float) -> bool:
        self.now += after_s
        is_alone = self._poll.request_came()
        self._poll.request_answered(self.loop)  # type: ignore[arg-type]
        return is_alone

    @property
    def is_awake(self) -> bool:
        return bool(self.loop.soon)


def test_the_first_request_keeps_nobody_awake() -> None:
    day = Day()
    day.request(after_s=0.0)
    assert not day.is_awake


def test_a_request_at_once_after_an_answer_keeps_the_loop_awake_until_the_moment_is_over() -> None:
    day = Day()
    day.request(after_s=0.0)
    day.request(after_s=0.5)
    for _ in range(3):
        day.loop.come_round()
        assert day.is_awake
    day.now += 1.0
    day.loop.come_round()
    assert not day.is_awake


def test_each_further_answer_begins_the_moment_anew_with_one_look_a_round() -> None:
    day = Day()
    day.request(after_s=0.0)
    for _ in range(5):
        day.request(after_s=0.9)
        day.loop.come_round()
        assert len(day.loop.soon) == 1


def test_a_client_that_comes_less_often_is_not_waited_for() -> None:
    day = Day()
    day.request(after_s=0.0)
    day.request(after_s=0.5)
    day.now += 1.0
    day.loop.come_round()
    for _ in range(5):
        day.request(after_s=1.5)
        assert not day.is_awake


def test_a_moment_of_nothing_never_keeps_it_awake() -> None:
    day = Day(moment_s=0.0)
    for _ in range(5):
        day.request(after_s=0.0)
        assert not day.is_awake


def test_who_came_alone_in_the_last_turn_is_taken_to_come_alone() -> None:
    day = Day()
    found = []
    for _ in range(5):
        found.append(day.request(after_s=0.1))
        day.loop.come_round()
        day.loop.come_round()  # a turn in which nobody comes says nothing
    assert found == [False, False, False, True, True]  # of the first ones it is not known yet


def test_who_comes_in_company_once_is_taken_to_come_so_in_the_next_turn() -> None:
    day = Day()
    found = []
    for n_together in (1, 1, 1, 1, 3, 3, 1, 1):
        found.append([day.request(after_s=0.1) for _ in range(n_together)])
        day.loop.come_round()
    assert found[:4] == [[False], [False], [False], [True]]
    assert found[4:] == [[True, False, False], [False, False, False], [False], [True]]


def test_while_the_loop_may_sleep_nobody_is_taken_to_come_alone() -> None:
    day = Day()
    for _ in range(3):
        day.request(after_s=0.5)
        day.loop.come_round()
    day.now += 1.0
    day.loop.come_round()
    assert not day.is_awake
    assert [day.request(after_s=1.5) for _ in range(3)] == [False] * 3


def test_a_real_loop_goes_to_sleep_again() -> None:
    async def two_requests() -> None:
        poll = BusyPoll(0.01)
        loop = asyncio.get_running_loop()
        for _ in range(2):
            poll.request_came()
            poll.request_answered(loop)
        await asyncio.sleep(0.05)
        assert not poll.is_awake

    asyncio.run(two_requests())
