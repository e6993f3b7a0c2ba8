"""Connections to a socket that several workers share are shared out by how many each has."""

import asyncio
import errno
import socket
import tempfile
from contextlib import ExitStack

import pytest

from serving.shares import Shares
from serving.taking import Taker


@pytest.fixture
def shares():
    with tempfile.TemporaryFile() as file:
        file.truncate(Shares.n_bytes(3))
        yield Shares(file.fileno())


def with_open(shares, *counts):
    """Returns shares of workers with so many open connections; None for one that is not there."""
    for place, n_open in enumerate(counts):
        if n_open is None:
            shares.leave(place)
        else:
            shares.tell(place, n_open)
    return shares


@pytest.mark.parametrize(
    ("counts", "ahead"),
    [
        ((0, 0), False),
        ((1, 0), True),
        ((0, 1), False),
        ((1, 1), False),
        ((34, 30), False),  # an eighth of the mean, which is 32
        ((35, 30), True),
        ((3, 3, 1), True),
        ((7, None, None), False),  # nobody is waited for that is not there
        ((7, None, 0), True),
        ((None, 0, 0), False),
    ],
)
def test_a_worker_is_ahead_that_has_more_than_another_by_over_an_eighth_of_the_mean(shares, counts, ahead):
    assert with_open(shares, *counts).is_ahead(0) is ahead


def test_what_one_process_tells_another_sees(shares):
    with tempfile.TemporaryFile() as file:
        file.truncate(Shares.n_bytes(2))
        one, other = Shares(file.fileno()), Shares(file.fileno())
        one.tell(0, 5)
        other.tell(1, 4)
        assert one.is_ahead(0)
        other.leave(1)
        assert not one.is_ahead(0)


class Listening:
    """A listening socket and its clients."""

    def __init__(self):
        self.held = ExitStack()
        self.socket = self.held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.held.close()

    def connect(self, n_clients):
        """Opens connections, which wait to be taken."""
        return [
            self.held.enter_context(socket.create_connection(self.socket.getsockname(), timeout=5))
            for _ in range(n_clients)
        ]


class Worker:
    """One that takes connections, and keeps them until their client leaves."""

    rest_s = 1.0

    def __init__(self, listening, shares, place):
        self.held = []
        own = listening.held.enter_context(self.listener(listening))
        self.taker = Taker(own, shares, place, lambda: Kept(self), rest_s=self.rest_s)
        self.taker.open()

    def listener(self, listening):
        return listening.socket.dup()  # in a process of its own, it would have its own number too


class Kept(asyncio.Protocol):
    def __init__(self, worker):
        self.worker = worker

    def connection_made(self, transport):
        self.transport = transport
        self.worker.held.append(self)

    def connection_lost(self, exc):
        self.worker.held.remove(self)
        self.worker.taker.forget_one()


class FullListener(socket.socket):
    """One for whose first connection no file may be opened."""

    n_asked = 0

    def accept(self):
        self.n_asked += 1
        if self.n_asked == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class FullWorker(Worker):
    rest_s = 0.2

    def listener(self, listening):
        self.listening = FullListener(fileno=listening.socket.dup().detach())
        return self.listening


async def until(condition, within_s=5.0):
    """Waits, and returns the seconds that it took."""
    begun = asyncio.get_running_loop().time()
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.001)
    return asyncio.get_running_loop().time() - begun


async def end(*workers):
    for worker in workers:
        worker.taker.close()
        for one in list(worker.held):
            one.transport.abort()
    await until(lambda: not any(worker.held for worker in workers))


def test_connections_that_wait_together_are_shared_out(shares):
    async def play():
        with Listening() as listening:
            listening.connect(64)
            workers = [Worker(listening, shares, place) for place in range(2)]
            await until(lambda: sum(len(worker.held) for worker in workers) == 64)
            assert all(28 <= len(worker.held) <= 36 for worker in workers)
            await end(*workers)

    asyncio.run(play())


def test_a_worker_that_came_late_gets_what_is_new_until_it_has_as_many(shares):
    async def play():
        with Listening() as listening:
            early = Worker(listening, shares, 0)
            listening.connect(20)
            await until(lambda: len(early.held) == 20)
            late = Worker(listening, shares, 1)
            for n_new in range(1, 11):
                listening.connect(1)
                await until(lambda n_new=n_new: len(early.held) + len(late.held) == 20 + n_new)
            assert len(late.held) == 10
            await end(early, late)

    asyncio.run(play())


def test_a_client_that_leaves_makes_room_for_another(shares):
    async def play():
        with Listening() as listening:
            one, other = (Worker(listening, shares, place) for place in range(2))
            clients = listening.connect(8)
            await until(lambda: len(one.held) + len(other.held) == 8)
            names = {kept.transport.get_extra_info("peername") for kept in one.held}
            for client in clients:
                if client.getsockname() in names:
                    client.close()
            await until(lambda: not one.held)
            listening.connect(4)
            await until(lambda: len(one.held) == 4)
            assert len(other.held) == 4
            await end(one, other)

    asyncio.run(play())


def test_who_hangs_is_waited_for_a_few_times_only(shares):
    async def play():
        with Listening() as listening:
            shares.tell(1, 0)  # and takes none
            worker = Worker(listening, shares, 0)
            listening.connect(250)
            assert await until(lambda: len(worker.held) == 250) < 0.75  # 1 s, were it waited for each time
            await end(worker)

    asyncio.run(play())


def test_who_stops_leaves_the_rest_to_others_and_is_not_waited_for(shares):
    async def play():
        with Listening() as listening:
            leaver, other = (Worker(listening, shares, place) for place in range(2))
            listening.connect(2)
            await until(lambda: len(leaver.held) + len(other.held) == 2)
            leaver.taker.close()
            assert not shares.is_ahead(1)
            listening.connect(6)
            await until(lambda: len(other.held) == 7)
            await end(leaver, other)

    asyncio.run(play())


def test_where_no_more_files_may_be_open_it_is_tried_again_later(shares, caplog):
    async def play():
        with Listening() as listening:
            worker = FullWorker(listening, shares, 0)
            listening.connect(1)
            assert await until(lambda: worker.held) > 0.9 * worker.rest_s
            assert worker.listening.n_asked == 2
            await end(worker)

    asyncio.run(play())
    assert "Too many open files" in caplog.text


def test_where_no_more_files_may_be_open_another_worker_takes_what_waits(shares):
    async def play():
        with Listening() as listening:
            full = FullWorker(listening, shares, 0)
            listening.connect(3)
            await until(lambda: full.listening.n_asked == 1)
            other = Worker(listening, shares, 1)
            assert await until(lambda: len(other.held) == 3) < full.rest_s
            assert full.listening.n_asked == 1
            await end(full, other)

    asyncio.run(play())
