"""What is for another server is held until it is settled or an hour goes by, over restarts, and never too much."""

import sqlite3
import threading

import pytest

from serving.held import HELD_S, Held

NOW = 1_800_000_000.0


class Shelf:
    """A file of held outcomes, and the time."""

    def __init__(self, path, **settings):
        self.now = NOW
        self.path = path
        self.held = Held(path, now=lambda: self.now, **settings)

    def offered(self, most=100):
        return [one["prediction_id"] for one in self.held.offer(most)[0]]


@pytest.fixture(params=["file", "memory"])
def shelf(request, tmp_path):
    return Shelf(tmp_path / "outcomes" / "held.sqlite" if request.param == "file" else None, most=5)


def outcome(prediction_id, value="yes", name="label"):
    return {"prediction_id": prediction_id, "name": name, "value": value}


def test_each_value_is_offered_as_it_was_told_with_its_age(shelf):
    values = ["yes", 3, 2.5, True]
    assert shelf.held.hold([outcome("p", value, f"n{n}") for n, value in enumerate(values)]) == (4, 4)
    shelf.now += 7
    told, n_held = shelf.held.offer(100)
    assert sorted((one["name"], one["outcome"], one["age_s"]) for one in told) == [
        (f"n{n}", value, 7.0) for n, value in enumerate(values)
    ]
    assert [type(one["outcome"]) for one in sorted(told, key=lambda one: one["name"])] == [str, int, float, bool]
    assert n_held == len(shelf.held) == 4


def test_the_first_one_of_a_name_stays_and_a_second_takes_no_room(shelf):
    assert shelf.held.hold([outcome("p", "first"), outcome("p", "second"), outcome("p", 1, "cost")]) == (3, 2)
    assert {one["outcome"] for one in shelf.held.offer(9)[0]} == {"first", 1}


def test_there_are_never_more_than_so_many_and_who_is_left_over_is_told(shelf):
    assert shelf.held.hold([outcome(f"p{n}") for n in range(4)]) == (4, 4)
    assert shelf.held.hold([outcome(f"p{n}") for n in (0, 4, 5, 6)]) == (2, 1)
    assert len(shelf.held) == 5
    assert shelf.held.hold([outcome("p0")]) == (1, 0), "it is held already"


def test_what_was_offered_longest_ago_comes_first(shelf):
    for n in range(4):
        shelf.now += 1
        shelf.held.hold([outcome(f"p{n}")])
    assert shelf.offered(2) == ["p0", "p1"]
    shelf.now += 1
    assert shelf.offered(3) == ["p2", "p3", "p0"]
    shelf.now += 1
    shelf.held.hold([outcome("p4")])
    assert shelf.offered(2) == ["p4", "p1"]


def test_what_is_settled_is_held_no_longer_and_the_other_outcome_of_the_prediction_stays(shelf):
    shelf.held.hold([outcome("p"), outcome("p", 1, "cost"), outcome("q")])
    assert shelf.held.settle([("p", "label"), ("q", "other"), ("r", "label")]) == 1
    assert shelf.held.settle([("p", "label")]) == 0
    assert {(one["prediction_id"], one["name"]) for one in shelf.held.offer(9)[0]} == {("p", "cost"), ("q", "label")}


def test_after_an_hour_it_is_lost(shelf):
    shelf.held.hold([outcome("old")])
    shelf.now += 1
    shelf.held.hold([outcome("new")])
    shelf.now = NOW + HELD_S
    assert shelf.held.lose_old() == 0
    shelf.now += 0.5
    assert (shelf.held.lose_old(), shelf.offered()) == (1, ["new"])


def test_it_outlives_the_process_and_all_workers_have_the_same(tmp_path):
    path = tmp_path / "held.sqlite"
    one, other = Shelf(path), Shelf(path)
    one.held.hold([outcome("p")])
    assert other.offered() == ["p"]
    one.held.close()
    other.held.settle([("p", "label")])
    other.held.hold([outcome("q")])
    other.held.close()
    assert Shelf(path).offered() == ["q"]
    assert one.offered() == ["q"], "it may be used again"


def test_nothing_is_written_until_there_is_something_to_hold(tmp_path):
    shelf = Shelf(tmp_path / "outcomes" / "held.sqlite")
    assert (shelf.offered(), shelf.held.settle([("p", "label")]), shelf.held.lose_old(), len(shelf.held)) == (
        [],
        0,
        0,
        0,
    )
    assert not (tmp_path / "outcomes").exists()


def test_a_damaged_file_is_put_aside_with_a_warning(tmp_path, caplog):
    path = tmp_path / "held.sqlite"
    path.write_bytes(b"no database" * 1000)
    shelf = Shelf(path)
    shelf.held.hold([outcome("p")])
    assert shelf.offered() == ["p"]
    assert "is put aside" in caplog.text
    assert (tmp_path / "held.aside").read_bytes().startswith(b"no database")


def test_a_file_of_a_later_format_is_put_aside_too(tmp_path, caplog):
    path = tmp_path / "held.sqlite"
    later = sqlite3.connect(path)
    later.execute("pragma user_version=9")
    later.close()
    assert Shelf(path).offered() == []
    assert "it is of format 9" in caplog.text


def test_where_nothing_can_be_written_it_is_held_in_memory_with_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    shelf = Shelf(tmp_path / "file" / "held.sqlite")
    shelf.held.hold([outcome("p")])
    assert shelf.offered() == ["p"]
    assert "held in memory only" in caplog.text


def test_threads_that_hold_at_the_same_time_lose_nothing(tmp_path):
    shelves = [Shelf(tmp_path / "held.sqlite") for _ in range(2)]
    shelves[0].held.hold([outcome("first")])

    def hold(worker):
        for n in range(20):
            shelves[worker % 2].held.hold([outcome(f"{worker}-{n}")])

    threads = [threading.Thread(target=hold, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shelves[0].held) == len(shelves[1].held) == 81
