"""Asks live servers the same golden rows over and over while something moves, and keeps all that they say."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Event, Thread
from types import TracebackType

from release_platform.adapters.serving_client import ServingClient
from release_platform.adapters.serving_protocols import PROTOCOLS
from release_platform.domain.drill import Answer
from release_platform.domain.errors import ReleaseError, Unavailable, VerificationFailed
from release_platform.domain.ports import Clock
from release_platform.domain.verification import Expected, Told, problem_of

EVERY_S = 0.2
"""Seconds between two questions to one server."""
QUICK_S = 0.04
"""The same while a move is waited for: no time is told closer than this."""
ANSWER_S = 5.0
MOST = 2_000
"""Questions to one server: it is asked no more then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What came of one question.

    Attributes:
        url: The server.
        at: When all of it was there.
        told: What it said; None where it is no answer.
        problem: Why it is none.
        away: Whether the server did not answer at all, or not yet.
    """

    url: str
    at: datetime
    told: Told | None = None
    problem: str = ""
    away: bool = False

    @property
    def named(self) -> tuple[str, str]:
        """Version and epoch that the answer names; empty where it names none."""
        headers = {} if self.told is None else self.told.headers
        return headers.get("version", ""), headers.get("epoch", "")


class Questions:
    """One question after the other to each server, all servers at the same time, from entering until leaving.

    Args:
        urls: The servers.
        asked: The rows, and what kind of answer they get.
        clock: The time.
        api_key: What the servers ask for; empty for none.
    """

    def __init__(self, urls: Sequence[str], asked: Expected, clock: Clock, *, api_key: str = "") -> None:
        self._asked, self._clock = asked, clock
        self._heard: dict[str, list[Heard]] = {url: [] for url in urls}
        self._clients = {url: ServingClient(url, ANSWER_S, api_key=api_key) for url in urls}
        self._threads = [Thread(target=self._ask_on, args=(url,), name="drill", daemon=True) for url in urls]
        self._ended, self._news, self._quick = Event(), Event(), Event()

    def __enter__(self) -> "Questions":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Asks no more; what is under way is heard to its end."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients.values():
            client.close()

    def heard(self, url: str) -> tuple[Heard, ...]:
        """Returns what a server said so far, in order."""
        return tuple(self._heard[url])

    @contextmanager
    def quickly(self) -> Iterator[None]:
        """Asks more often until the block ends."""
        self._quick.set()
        try:
            yield
        finally:
            self._quick.clear()

    def wait(self, holds: Callable[[Heard], bool], *, within_s: float, now: Callable[[], float]) -> bool:
        """Returns whether what every server said last came to hold in time.

        Args:
            holds: Whether it does.
            within_s: Seconds to wait.
            now: A clock in seconds that never goes back.
        """
        end = now() + within_s
        while not all(heard and holds(heard[-1]) for heard in self._heard.values()):
            left = end - now()
            if left <= 0:
                return False
            self._news.wait(min(left, EVERY_S))
            self._news.clear()
        return True

    def go_on(self, seconds: float) -> None:
        """Lets some time pass in which the servers are asked as before."""
        self._ended.wait(seconds)

    def _ask_on(self, url: str) -> None:
        while not self._ended.is_set() and len(self._heard[url]) < MOST:
            self._heard[url].append(self._ask(url))
            self._news.set()
            self._ended.wait(QUICK_S if self._quick.is_set() else EVERY_S)

    def _ask(self, url: str) -> Heard:
        protocol = PROTOCOLS[0]
        try:
            body, headers, _ = self._clients[url].ask(protocol.ask(self._asked))
        except Unavailable as error:
            return Heard(url=url, at=self._clock.now(), problem=_said(url, error), away=True)
        except VerificationFailed as error:
            return Heard(url=url, at=self._clock.now(), problem=_said(url, error))
        at = self._clock.now()
        try:
            return Heard(url=url, at=at, told=protocol.read(body, headers, self._asked))
        except Exception as error:  # noqa: BLE001 - what a server says may break a reader in any way
            said = f"{url}: the answer cannot be read ({type(error).__name__}: {str(error)[:200]})"
            return Heard(url=url, at=at, problem=said)


def judged(heard: Heard, allowed: Sequence[Expected]) -> Answer:
    """Returns an answer with what is wrong with it: it must be that of one of these, to the last bit."""
    version, epoch = heard.named
    return Answer(url=heard.url, at=heard.at, version=version, epoch=epoch, problem=_problem(heard, allowed))


def _problem(heard: Heard, allowed: Sequence[Expected]) -> str:
    if heard.told is None:
        return heard.problem
    version, epoch = heard.named
    expected = next((one for one in allowed if (one.version, str(one.epoch)) == (version, epoch)), None)
    if expected is None:
        said = f"the answer names version {version or 'nothing'} of epoch {epoch or 'nothing'}"
        return f"{heard.url}: {said}, none of this drill"
    problem = problem_of(heard.told, expected)
    return f"{heard.url}: {problem}" if problem else ""


def _said(url: str, error: ReleaseError) -> str:
    return error.problem if url in error.problem else f"{url}: {error.problem}"
