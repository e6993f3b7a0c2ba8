"""A round asks the servers once, however many models there are."""

from collections.abc import Sequence
from datetime import UTC, datetime

from release_platform.domain.ports import HandedIn
from release_platform.live_traffic import FARTHEST_BACK, RECENT, Round
from tests.fakes.servers import FakeServers

AT = datetime(2026, 3, 1, 12, 0, 20, tzinfo=UTC)
LAST = int(AT.timestamp() // 60) - 1


class Asked(FakeServers):
    """Servers that note after which minutes they were asked."""

    def __init__(self) -> None:
        super().__init__("http://one")
        self.after: list[int] = []

    def windows(self, after: int) -> Sequence[HandedIn]:
        self.after.append(after - LAST)
        return super().windows(after)


def test_the_servers_are_asked_once_for_models_that_need_recent_minutes() -> None:
    servers = Asked()
    heard = Round(servers, AT)
    for after in (LAST, LAST - 1, LAST - RECENT):
        assert [one.url for one in heard.handed_in(after)] == ["http://one"]
    assert servers.after == [-RECENT]


def test_they_are_asked_once_more_for_all_that_there_is_where_a_model_needs_older_minutes() -> None:
    servers = Asked()
    heard = Round(servers, AT)
    for after in (LAST, LAST - 20, LAST - 40, LAST - 60):
        heard.handed_in(after)
    assert servers.after == [-RECENT, -FARTHEST_BACK]


def test_without_servers_nothing_is_handed_in() -> None:
    assert Round(None, AT).handed_in(0) == ()
