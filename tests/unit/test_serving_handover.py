"""What a process counted goes to the next one in its place, and only after an orderly end."""

import os

import pytest

from release_platform.domain.windows import Route, Window, WindowKey
from serving.handover import Ended, Handover

ADDRESS = ("127.0.0.1", 8000)
MINUTE = 29_000_000


def counted(replica, minute=MINUTE):
    window = Window(key=WindowKey(model="m", version="1", route=Route.STABLE, minute=minute), requests=3)
    return Ended(replica=replica, since=minute - 5, ended=minute, whole=(minute - 1, minute), windows=(window,))


@pytest.fixture
def start(tmp_path):
    """Starts a process in a place, and returns its hand-over and what it found."""

    def started(replica, *, place=0, address=ADDRESS):
        handover = Handover(tmp_path / "handover", address, replica)
        return handover, handover.take(place)

    return started


def test_the_first_process_of_a_place_goes_on_from_nothing(start):
    assert start("a")[1] is None


def test_what_a_process_left_is_found_once_by_the_next_one_in_its_place(start):
    first, _ = start("a")
    first.leave([counted("z", MINUTE - 1), counted("a")])
    assert start("b", place=1)[1] is None
    assert start("b", address=("127.0.0.1", 8001))[1] is None
    second, found = start("b")
    assert found == (counted("z", MINUTE - 1), counted("a"))
    assert start("c")[1] is None  # b was killed
    second.leave([counted("b")])
    assert start("d")[1] is None  # b left it too late: c was here since


def test_a_process_that_was_killed_leaves_nothing_though_the_one_before_it_did(start):
    first, _ = start("a")
    first.leave([counted("a")])
    assert start("b")[1] is not None
    assert start("c")[1] is None


def test_a_server_on_a_free_port_has_no_place(start):
    handover, found = start("a", address=("127.0.0.1", 0))
    assert found is None
    handover.leave([counted("a")])
    assert start("b", address=("127.0.0.1", 0))[1] is None


def test_what_nobody_came_back_for_in_an_hour_is_removed_and_who_runs_stays(start, tmp_path):
    left, _ = start("a")
    left.leave([counted("a")])
    start("b", place=1)
    for file in (tmp_path / "handover").glob("*.json"):
        os.utime(file, (0, 0))
    start("c", place=2)
    places = sorted(file.name.removesuffix(".json")[-1] for file in (tmp_path / "handover").glob("*.json"))
    assert places == ["1", "2"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 2, "runs": "a", "left": []}',
        b'{"format": 1, "runs": "a", "left": [{"replica": "a"}]}',
        b'{"format": 1, "runs": "a", "left": [{"replica":"a","since":1,"ended":2,"whole":["x"],"windows":[]}]}',
        b'{"format": 1, "runs": "a", "left": [{"replica":"a","since":1,"ended":2,"whole":[],"windows":[7]}]}',
    ],
)
def test_what_cannot_be_read_is_nothing(start, tmp_path, text):
    first, _ = start("a")
    first.leave([counted("a")])
    (file,) = (tmp_path / "handover").glob("*.json")
    file.write_bytes(text)
    assert start("b")[1] is None


def test_where_nothing_can_be_kept_nothing_is_found_and_the_server_goes_on(tmp_path):
    (tmp_path / "handover").write_text("a file")
    handover = Handover(tmp_path / "handover", ADDRESS, "a")
    assert handover.take(0) is None
    handover.leave([counted("a")])
