"""Servers that keep what is pushed to them, and hand in what a test says that they counted."""

from collections.abc import Collection, Mapping, Sequence

from release_platform.domain.ports import Given, HandedIn, HandedSamples
from release_platform.domain.push import Accepted, Outcome, Push, Unanswered
from release_platform.domain.refusals import CallsOfMinute
from release_platform.domain.samples import Label, Sample
from release_platform.domain.windows import Window


class FakeServers:
    """The `Servers` at these addresses.

    Args:
        urls: Their addresses, which may be changed at any time.
        down: Those that do not answer. It may be changed at any time.
        broken: What every push raises, as no right one does.

    Attributes:
        counted: What each server counted of its traffic, by address. It may be changed at any time.
        processes: The process of each server, and the minute in which it began, by address; another one is a restart.
        gives: What each server gives versions beside Production, by address and model; nothing: it does not say.
        sampled: What each server sampled of it, by address; all minutes up to `closed` are over.
        labelled: The labels that it was told of that sample, by address.
        called: What it counted of all calls, by address.
        minutes_told: Of how many minutes a server tells its sample at once.
    """

    def __init__(self, *urls: str, down: Sequence[str] = (), broken: Exception | None = None) -> None:
        self.urls = urls
        self.down = set(down)
        self.broken = broken
        self.pushed: list[Push] = []
        self.counted: dict[str, list[Window]] = {url: [] for url in urls}
        self.processes: dict[str, tuple[str, int]] = {url: (f"replica at {url}", 0) for url in urls}
        self.gives: dict[str, dict[str, list[Given]]] = {url: {} for url in urls}
        self.sampled: dict[str, list[Sample]] = {url: [] for url in urls}
        self.labelled: dict[str, list[Label]] = {url: [] for url in urls}
        self.called: dict[str, list[CallsOfMinute]] = {url: [] for url in urls}
        self.closed = 0
        self.minutes_told = 1_000_000_000

    def push(self, push: Push) -> Sequence[Outcome]:
        """See `Servers`."""
        if self.broken is not None:
            raise self.broken
        self.pushed.append(push)
        return [self._answer(url, push) for url in self.urls]

    def windows(self, after: int) -> Sequence[HandedIn]:
        """See `Servers`."""
        return [self._hand_in(url, after) for url in self.urls]

    def samples(self, after: Mapping[str, int], *, of: Collection[str] | None = None) -> Sequence[HandedSamples]:
        """See `Servers`."""
        return [self._hand_samples(url, after.get(url, -1)) for url in self.urls if of is None or url in of]

    def _hand_samples(self, url: str, after: int) -> HandedSamples:
        if url in self.down:
            return HandedSamples(url=url, problem="down")
        minutes = sorted({sample.minute for sample in self.sampled[url] if after < sample.minute <= self.closed})
        more = len(minutes) > self.minutes_told
        closed = minutes[self.minutes_told - 1] if more else self.closed
        told = [sample for sample in self.sampled[url] if after < sample.minute <= closed]
        labels = [label for label in self.labelled[url] if after < label.minute <= closed]
        calls = [one for one in self.called[url] if after < one.minute <= closed]
        return HandedSamples(url=url, closed=closed, samples=told, labels=labels, calls=calls, more=more)

    def _hand_in(self, url: str, after: int) -> HandedIn:
        if url in self.down:
            return HandedIn(url=url, problem="down")
        replica, since = self.processes[url]
        windows = [window for window in self.counted[url] if window.key.minute > max(after, since - 1)]
        minutes = {window.key.minute for counted in self.counted.values() for window in counted}
        whole = {minute for minute in minutes if minute > since}
        return HandedIn(
            url=url, replica=replica, since=since, whole=whole, windows=windows, gives=self.gives.get(url, {})
        )

    def _answer(self, url: str, push: Push) -> Outcome:
        if url in self.down:
            return Unanswered(url=url, problem="down")
        return Accepted(url=url, version=push.version, epoch=push.epoch, done=push.done)
