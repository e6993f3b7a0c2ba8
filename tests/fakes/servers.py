"""Servers that keep what is pushed to them."""

from collections.abc import Sequence

from release_platform.domain.push import Accepted, Outcome, Push, Unanswered


class FakeServers:
    """The `Servers` at these addresses.

    Args:
        urls: Their addresses.
        down: Those that do not answer. It may be changed at any time.
        broken: What every push raises, as no right one does.
    """

    def __init__(self, *urls: str, down: Sequence[str] = (), broken: Exception | None = None) -> None:
        self._urls = urls
        self.down = set(down)
        self.broken = broken
        self.pushed: list[Push] = []

    def push(self, push: Push) -> Sequence[Outcome]:
        """See `Servers`."""
        if self.broken is not None:
            raise self.broken
        self.pushed.append(push)
        return [self._answer(url, push) for url in self._urls]

    def _answer(self, url: str, push: Push) -> Outcome:
        if url in self.down:
            return Unanswered(url=url, problem="down")
        return Accepted(url=url, version=push.version, epoch=push.epoch)
