"""What a server was told of another one's predictions is carried there, and nothing is given up while one is away."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.held_outcomes import (
    UNKNOWN_AFTER_S,
    HandedOutcomes,
    HeldOutcome,
    Offered,
    Settled,
    settle,
)
from release_platform.held_outcomes import HeldOutcomes


def outcome(prediction_id: str, name: str = "label", *, age_s: float = 0.0) -> HeldOutcome:
    return HeldOutcome(prediction_id=prediction_id, name=name, value=1, age_s=age_s)


class FakeOutcomeServers:
    """The `OutcomeServers` at some addresses.

    Args:
        known: The predictions that each server made, by its address.
        held: What each holds for others.
        down: Those that do not answer. It may be changed at any time.

    Attributes:
        came: What each server was told of its own predictions, each time.
        lost: What was settled as known to no server.
    """

    def __init__(
        self, known: dict[str, set[str]], held: dict[str, list[HeldOutcome]], down: Sequence[str] = ()
    ) -> None:
        self.known, self.held, self.down = known, held, set(down)
        self.came: dict[str, list[tuple[str, str]]] = {url: [] for url in known}
        self.lost: list[tuple[str, str]] = []
        self.deaf: set[str] = set()

    def held_outcomes(self) -> Sequence[HandedOutcomes]:
        return [
            HandedOutcomes(url=url, problem="down")
            if url in self.down
            else HandedOutcomes(url=url, outcomes=tuple(self.held.get(url, ())))
            for url in self.known
        ]

    def offer_outcomes(self, outcomes: Sequence[HeldOutcome]) -> Sequence[Offered]:
        ids = frozenset(one.prediction_id for one in outcomes)
        found = []
        for url, known in self.known.items():
            if url in self.down:
                found.append(Offered(url=url, unanswered=ids, problem=f"{url} is down"))
                continue
            self.came[url] += [one.key for one in outcomes if one.prediction_id in known]
            found.append(Offered(url=url, unknown=ids - known))
        return found

    def settle_outcomes(self, url: str, settled: Settled) -> str:
        if url in self.deaf:
            return f"{url} does not answer"
        gone = {one.key for one in (*settled.carried, *settled.unknown)}
        self.held[url] = [one for one in self.held[url] if one.key not in gone]
        self.lost += [one.key for one in settled.unknown]
        return ""


CARRIED = "1 outcome(s) were carried to the server that made the prediction"
WAITS = "1 outcome(s) wait for a server that knows their prediction"
UNKNOWN = "1 outcome(s) are of predictions that no server knows"


def test_what_one_server_holds_comes_to_the_one_that_knows_it_once() -> None:
    servers = FakeOutcomeServers({"a": {"a-1"}, "b": {"b-1"}}, {"b": [outcome("a-1"), outcome("a-1", "cost")]})
    carrying = HeldOutcomes(servers)
    assert carrying.carry() == (CARRIED.replace("1", "2"),)
    assert servers.came == {"a": [("a-1", "label"), ("a-1", "cost")], "b": []}
    assert carrying.carry() == ()
    assert servers.held == {"b": []}


def test_while_its_server_is_away_it_waits_and_is_carried_when_that_is_back() -> None:
    servers = FakeOutcomeServers({"a": {"a-1"}, "b": set()}, {"b": [outcome("a-1", age_s=3000.0)]}, down=["a"])
    carrying = HeldOutcomes(servers)
    assert carrying.carry() == (WAITS, "a is down")
    servers.down.clear()
    assert carrying.carry() == (CARRIED,)
    assert servers.lost == []


@pytest.mark.parametrize(
    ("age_s", "said"),
    [(UNKNOWN_AFTER_S - 0.1, WAITS), (UNKNOWN_AFTER_S, UNKNOWN), (UNKNOWN_AFTER_S + 0.1, UNKNOWN)],
)
def test_what_no_server_knows_is_given_up_after_two_minutes(age_s: float, said: str) -> None:
    servers = FakeOutcomeServers({"a": set(), "b": set()}, {"b": [outcome("gone-1", age_s=age_s)]})
    assert HeldOutcomes(servers).carry() == (said,)
    assert servers.lost == ([("gone-1", "label")] if said == UNKNOWN else [])


def test_a_server_that_is_not_told_what_became_of_it_has_it_carried_again() -> None:
    servers = FakeOutcomeServers({"a": {"a-1"}, "b": set()}, {"b": [outcome("a-1")]})
    servers.deaf = {"b"}
    assert HeldOutcomes(servers).carry() == (CARRIED, "b does not answer")
    servers.deaf = set()
    assert HeldOutcomes(servers).carry() == (CARRIED,)
    assert servers.came["a"] == [("a-1", "label")] * 2, "to be told twice does the server no harm"


def test_what_two_servers_hold_is_offered_once_and_settled_with_both() -> None:
    servers = FakeOutcomeServers({"a": {"a-1"}, "b": set(), "c": set()}, {"b": [outcome("a-1")], "c": [outcome("a-1")]})
    assert HeldOutcomes(servers).carry() == (CARRIED,)
    assert servers.held == {"b": [], "c": []}


def test_without_servers_and_with_nothing_held_nothing_is_said() -> None:
    assert HeldOutcomes(None).carry() == ()
    assert HeldOutcomes(FakeOutcomeServers({}, {})).carry() == ()
    assert HeldOutcomes(FakeOutcomeServers({"a": set()}, {}, down=["a"])).carry() == ()


@given(
    answers=st.lists(st.sampled_from(["known", "unknown", "unanswered"]), max_size=5),
    age_s=st.sampled_from([0.0, UNKNOWN_AFTER_S]),
)
def test_it_is_carried_where_one_knows_it_and_unknown_only_where_all_say_so(answers: list[str], age_s: float) -> None:
    one, ids = outcome("p-1", age_s=age_s), frozenset({"p-1"})
    said = {"known": {}, "unknown": {"unknown": ids}, "unanswered": {"unanswered": ids}}
    settled = settle([one], [Offered(url="u", **said[answer]) for answer in answers])  # type: ignore[arg-type]
    assert bool(settled.carried) == ("known" in answers)
    assert bool(settled.unknown) == (set(answers) == {"unknown"} and age_s >= UNKNOWN_AFTER_S)


def test_an_outcome_is_read_strictly_and_told_as_a_client_tells_it() -> None:
    written = {"prediction_id": "p-1", "name": "cost", "outcome": 2.5, "age_s": 3}
    found = HeldOutcome.from_json(written)
    assert found.to_json() == {"prediction_id": "p-1", "cost": 2.5}
    for wrong in (None, {}, written | {"outcome": None}, written | {"more": 1}, written | {"name": 1}):
        with pytest.raises(ValueError, match=r"outcome|name"):
            HeldOutcome.from_json(wrong)
