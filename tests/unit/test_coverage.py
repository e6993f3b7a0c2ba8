"""Of which minutes all was handed in: servers that are silent, processes that end and begin, and changes on purpose."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from release_platform.domain.coverage import SEEN_AGAIN_S, Owed, holes_in, owed_by
from release_platform.domain.ports import Given, HandedIn
from release_platform.domain.windows import Route

FIRST = 29_000_000
ONE, TWO = "http://one", "http://two"
SHARE = Given(route=Route.CANARY, version="2", weight=0.25)


def process(url: str, name: str, *, since: int = -100, whole: range = range(-99, 100)) -> HandedIn:
    return HandedIn(url=url, replica=name, since=FIRST + since, whole={FIRST + minute for minute in whole})


def born(url: str, name: str, since: int) -> HandedIn:
    return process(url, name, since=since, whole=range(since + 1, 100))


def silent(url: str) -> HandedIn:
    return HandedIn(url=url, problem="it does not answer in time")


@dataclass
class Asked:
    """All that is owed, as the release store keeps it: what was told once stays told."""

    judged: int = -1
    kept: dict[tuple[int, str, str], bool] = field(default_factory=dict)

    def at(self, minute: int, second: float, *handed: HandedIn) -> None:
        """Asks at a moment, as the sensor does."""
        when = datetime.fromtimestamp((FIRST + minute) * 60 + second, UTC)
        told = [replace(h, whole={m for m in h.whole if m < FIRST + minute}) for h in handed]
        for one in owed_by(told, "m", SHARE, after=FIRST + self.judged, last=FIRST + minute - 1, at=when):
            key = (one.minute, one.url, one.replica)
            self.kept[key] = self.kept.get(key, False) or one.told

    def each_five_s(self, minutes: range, *handed: HandedIn) -> None:
        for minute in minutes:
            for second in range(0, 60, 5):
                self.at(minute, second, *handed)

    def holes(self, until: int) -> dict[int, list[str]]:
        owed = [Owed(minute=m, url=url, replica=name, told=told) for (m, url, name), told in self.kept.items()]
        found = holes_in(range(FIRST, FIRST + until + 1), owed)
        return {minute - FIRST: list(urls) for minute, urls in found.items()}


BOTH = (process(ONE, "a"), process(TWO, "b"))


def test_minutes_that_all_servers_tell_are_no_holes_and_those_that_nobody_asked_for_are() -> None:
    asked = Asked()
    asked.each_five_s(range(4), *BOTH)
    assert asked.holes(2) == {}
    assert asked.holes(6) == {3: [ONE, TWO], 4: [ONE, TWO], 5: [], 6: []}


def test_each_minute_in_which_one_of_two_servers_is_silent_is_a_hole_that_names_it() -> None:
    asked = Asked()
    asked.each_five_s(range(3), BOTH[0], silent(TWO))
    assert asked.holes(1) == {0: [TWO], 1: [TWO]}


def test_a_server_that_answers_late_but_before_the_judge_looks_makes_no_hole() -> None:
    asked = Asked()
    asked.each_five_s(range(1), *BOTH)
    asked.at(1, 1, BOTH[0], silent(TWO))
    assert asked.holes(0) == {0: [TWO]}
    asked.at(1, 14, *BOTH)
    assert asked.holes(0) == {}


def test_a_server_that_answered_and_then_goes_silent_keeps_what_it_told() -> None:
    asked = Asked()
    asked.each_five_s(range(1), *BOTH)
    asked.at(1, 1, *BOTH)
    asked.at(1, 6, BOTH[0], silent(TWO))
    asked.each_five_s(range(2, 3), BOTH[0], silent(TWO))
    assert asked.holes(1) == {1: [TWO]}


def test_one_process_of_several_that_does_not_answer_is_a_hole() -> None:
    asked = Asked()
    asked.each_five_s(range(2), process(ONE, "a"), process(ONE, "b"))
    asked.judged = 0
    asked.each_five_s(range(2, 3), process(ONE, "a"), silent(ONE))
    assert asked.holes(1) == {1: [ONE]}


@pytest.mark.parametrize("second", [0.5, 20, 59.5])
def test_a_process_that_is_replaced_makes_a_hole_of_its_last_minute_and_of_its_successors_first(second: float) -> None:
    asked = Asked()
    asked.each_five_s(range(2), *BOTH)
    for at in range(0, 60, 5):
        asked.at(2, at, BOTH[0], process(TWO, "b") if at <= second else born(TWO, "c", 2))
    asked.each_five_s(range(3, 5), BOTH[0], born(TWO, "c", 2 if second < 59 else 3))
    assert asked.holes(3) == {2: [TWO]} if second < 59 else {2: [TWO], 3: [TWO]}


def test_a_process_that_ends_before_its_last_minute_was_fetched_takes_that_minute_too() -> None:
    asked = Asked()
    asked.each_five_s(range(2), *BOTH)  # seen at 1:55, and killed at 2:01 before anybody asked again
    asked.each_five_s(range(2, 4), BOTH[0], born(TWO, "c", 2))
    assert asked.holes(2) == {1: [TWO], 2: [TWO]}


def test_a_worker_that_ends_without_a_successor_is_missed() -> None:
    asked = Asked()
    asked.each_five_s(range(2), process(ONE, "a"), process(ONE, "b"))
    asked.at(2, 1, process(ONE, "a"), process(ONE, "b"))
    asked.each_five_s(range(3, 5), process(ONE, "a"))
    assert asked.holes(3) == {2: [ONE]}


def test_who_is_seen_just_before_a_minute_owes_it_too() -> None:
    asked = Asked()
    asked.at(0, 60 - SEEN_AGAIN_S + 1, *BOTH)
    asked.at(2, 1, BOTH[0])
    assert asked.holes(1) == {0: [TWO], 1: [TWO]}


def test_a_server_that_is_added_makes_no_hole_but_of_the_minute_in_which_it_began() -> None:
    asked = Asked()
    asked.each_five_s(range(2), BOTH[0])
    asked.each_five_s(range(2, 5), BOTH[0], born(TWO, "b", 2))
    assert asked.holes(3) == {2: [TWO]}


def test_a_server_that_ran_before_it_was_named_makes_no_hole() -> None:
    asked = Asked()
    asked.each_five_s(range(2), BOTH[0])
    asked.each_five_s(range(2, 4), *BOTH)
    assert asked.holes(2) == {}


def test_a_server_that_is_taken_away_on_purpose_makes_a_hole_of_that_minute_only() -> None:
    asked = Asked()
    asked.each_five_s(range(2), *BOTH)
    asked.at(2, 1, *BOTH)
    asked.at(2, 6, BOTH[0])
    asked.each_five_s(range(3, 5), BOTH[0])
    assert asked.holes(3) == {2: [TWO]}


def left(one: HandedIn, ended: int) -> HandedIn:
    """What a process handed over that ended in good order."""
    return replace(one, ended=FIRST + ended, whole={m for m in one.whole if m <= FIRST + ended})


def heir(url: str, name: str, since: int) -> HandedIn:
    return process(url, name, since=since, whole=range(since, 100))


@pytest.mark.parametrize("second", [0.5, 20, 54, 59.5])
def test_a_process_that_hands_over_to_its_successor_makes_no_hole(second: float) -> None:
    asked = Asked()
    asked.each_five_s(range(2), *BOTH)
    begins = 2 if second < 59 else 3
    after = (left(process(TWO, "b"), 2), heir(TWO, "c", begins))
    for at in range(0, 60, 5):
        asked.at(2, at, BOTH[0], *((process(TWO, "b"),) if at <= second else after))
    asked.each_five_s(range(3, 6), BOTH[0], *after)
    assert asked.holes(4) == {}


def test_a_process_that_hands_over_before_its_last_minute_was_fetched_makes_no_hole() -> None:
    asked = Asked()
    asked.each_five_s(range(2), *BOTH)  # seen at 1:55, and ended at 1:58 before anybody asked again
    asked.each_five_s(range(2, 4), BOTH[0], left(process(TWO, "b"), 1), heir(TWO, "c", 2))
    assert asked.holes(2) == {}


def test_a_process_that_begins_while_it_is_asked_owes_nothing_of_the_minute_before() -> None:
    asked = Asked()
    asked.each_five_s(range(2), BOTH[0])
    asked.at(1, 59.9, BOTH[0], heir(TWO, "c", 2))
    asked.each_five_s(range(2, 4), BOTH[0], heir(TWO, "c", 2))
    assert asked.holes(2) == {}


def test_a_process_that_was_born_in_the_minute_in_which_it_ended_does_not_make_it_whole() -> None:
    asked = Asked()
    asked.each_five_s(range(1), BOTH[0])
    asked.each_five_s(range(1, 4), BOTH[0], left(born(TWO, "b", 1), 1), heir(TWO, "c", 1))
    assert asked.holes(2) == {1: [TWO]}


def test_a_server_that_does_not_say_what_it_counted_whole_tells_nothing() -> None:
    asked = Asked()
    asked.each_five_s(range(2), HandedIn(url=ONE, replica="a"))
    assert asked.holes(0) == {0: [ONE]}


@pytest.mark.parametrize(
    ("gives", "is_hole"),
    [
        ({}, False),  # a server that does not say
        ({"m": (SHARE,)}, False),
        ({"other": ()}, False),  # one that does not serve the model
        ({"m": ()}, True),
        ({"m": (replace(SHARE, weight=0.05),)}, True),
        ({"m": (replace(SHARE, route=Route.SHADOW),)}, True),
        ({"m": (replace(SHARE, version="3"),)}, True),
    ],
)
def test_a_minute_in_which_a_process_gives_another_share_is_a_hole(
    gives: dict[str, tuple[Given, ...]], is_hole: bool
) -> None:
    asked = Asked()
    asked.each_five_s(range(4), process(ONE, "a"), replace(process(TWO, "b"), gives=gives))
    assert asked.holes(2) == ({0: [TWO], 1: [TWO], 2: [TWO]} if is_hole else {})


def test_a_process_that_takes_the_share_before_the_judge_looks_makes_no_hole() -> None:
    late = replace(process(TWO, "b"), gives={"m": ()})
    asked = Asked()
    asked.each_five_s(range(2), process(ONE, "a"), late)
    asked.at(2, 0, process(ONE, "a"), late)
    asked.at(2, 5, process(ONE, "a"), replace(late, gives={"m": (SHARE,)}))
    assert asked.holes(1) == {}
