"""What a process remembers outlives it, however it ends: no number is used twice, no arm is mixed up with another."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from release_platform.domain.metrics import Task
from release_platform.domain.windows import LABEL, Route
from serving.arms import Arms
from serving.outcomes import Memory
from serving.prediction_files import (
    ARMS,
    ASIDE,
    FORMAT,
    FRESH,
    GENERATION,
    MOST_LEFT,
    RING,
    PredictionFiles,
    n_bytes_of,
)
from serving.ring import BYTES_OF_ONE, MOST_NAMES, ROW, SHADOW, ring_in_memory
from serving.tallies import Arm
from tests.fakes.server import until

STABLE = Arm("m", "1", Route.STABLE, Task.MULTICLASS, ("a", True, 3, 1.5))
CANARY = Arm("m", "2", Route.CANARY, Task.REGRESSION, ())
SHADOWED = Arm("m", "3", Route.SHADOW, Task.REGRESSION, ())
SIZE = 100
SECTOR = 512


@contextmanager
def taken_over(folder, size=SIZE, *, share=0.0):
    kept = PredictionFiles(folder, size, share=share).take_over()
    assert kept is not None
    try:
        yield kept
    finally:
        kept.close()


def keep(memory, arm, numbers, minute=7):
    memory.keep(arm, minute, np.array(numbers, dtype=np.int64), np.array(numbers, dtype=np.float64) / 2)


def rings(folder):
    return sorted(path.name.removesuffix(RING) for path in folder.glob(f"*{RING}"))


def test_who_starts_goes_on_where_the_one_before_ended(tmp_path):
    with taken_over(tmp_path) as before:
        keep(before.memory, STABLE, [1, 2])
        keep(before.memory, CANARY, [3])
        before.memory.keep_shadow(SHADOWED, np.array([2]), np.array([9.0]))
        assert before.memory.is_first(before.memory.find(1), before.memory.bit_of("cost"))
    with taken_over(tmp_path) as after:
        assert (after.origin, after.first > GENERATION - 1) == (before.origin, True)
        assert after.memory.find(1).answers == ((STABLE, 0.5),)
        assert after.memory.find(2).answers == ((STABLE, 1.0), (SHADOWED, 9.0))
        assert after.memory.find(3).answers == ((CANARY, 1.5),)
        assert [type(label) for label in after.memory.find(1).answers[0][0].classes] == [str, bool, int, float]
        assert after.memory.find(3).minute == 7
        assert not after.memory.is_first(after.memory.find(1), after.memory.bit_of("cost"))
        assert after.memory.is_first(after.memory.find(1), after.memory.bit_of(LABEL))
        assert after.memory.n_remembered == 3
        keep(after.memory, CANARY, [after.first])
        assert after.memory.find(after.first).answers[0][0] == CANARY
        assert after.memory.n_remembered == 4


def test_a_number_is_never_given_twice_whatever_was_put_in(tmp_path):
    first = []
    for _ in range(4):
        with taken_over(tmp_path) as kept:
            first.append(kept.first)
            keep(kept.memory, STABLE, [kept.first + 5])
    assert first[0] == 1
    assert all(later - earlier >= GENERATION for earlier, later in pairwise(first))


@settings(max_examples=50)
@given(runs=st.lists(st.integers(0, 25), min_size=2, max_size=5), size=st.integers(1, 20))
def test_over_restarts_too_the_oldest_makes_room_for_the_newest(tmp_path_factory, runs, size):
    folder, given_so_far = tmp_path_factory.mktemp("files"), []
    for n in runs:
        with taken_over(folder, size) as kept:
            numbers = list(range(kept.first, kept.first + n))
            keep(kept.memory, STABLE, numbers)
            given_so_far += numbers
            known = [number for number in given_so_far if kept.memory.find(number) is not None]
            assert known == given_so_far[-size:]
            assert kept.memory.n_remembered == len(known)


def test_a_file_of_another_size_answers_still_and_nobody_goes_on_with_it(tmp_path):
    with taken_over(tmp_path) as before:
        keep(before.memory, STABLE, [1])
    with taken_over(tmp_path, SIZE * 2) as after:
        assert after.origin != before.origin
        kept = PredictionFiles(tmp_path, SIZE * 2).borrow(before.origin)
        assert kept.memory.find(1).answers == ((STABLE, 0.5),)
        kept.close()


def test_a_file_in_which_no_name_is_free_is_not_gone_on_with(tmp_path):
    with taken_over(tmp_path) as before:
        bits = [before.memory.bit_of(f"name_{n}") for n in range(MOST_NAMES + 1)]
        assert bits == [*range(MOST_NAMES), None]
    with taken_over(tmp_path) as after:
        assert after.origin != before.origin
        assert after.memory.bit_of(LABEL) == 0


def test_two_that_start_at_the_same_time_never_have_the_same_file(tmp_path):
    with taken_over(tmp_path) as before:
        pass
    with taken_over(tmp_path) as one, taken_over(tmp_path) as other:
        assert {one.origin, other.origin} > {before.origin}
        with pytest.raises(BlockingIOError):
            PredictionFiles(tmp_path, SIZE).borrow(one.origin)
    assert len(rings(tmp_path)) == 2
    assert PredictionFiles(tmp_path, SIZE).borrow("0" * 16) is None


RACER = """
import sys, numpy as np
from pathlib import Path
from serving.prediction_files import PredictionFiles
from tests.unit.test_serving_prediction_files import STABLE, keep
kept = PredictionFiles(Path(sys.argv[1]), 100).take_over()
number = kept.first
print(kept.origin, number, flush=True)
sys.stdin.readline()
while True:
    keep(kept.memory, STABLE, list(range(number, number + 40)))
    kept.memory.keep_shadow(STABLE, np.arange(number, number + 40), np.arange(number, number + 40) * 3.0)
    number += 40
"""


def test_processes_that_race_for_one_file_and_are_killed_while_they_write_leave_only_what_is_whole(tmp_path):
    with taken_over(tmp_path) as before:
        keep(before.memory, CANARY, [1])
    command = [sys.executable, "-c", RACER, str(tmp_path)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
    try:
        said = [racer.stdout.readline().split() for racer in racers]
        assert len({origin for origin, _ in said}) == len(racers)
        assert before.origin.encode() in {origin for origin, _ in said}
        for racer in racers:
            racer.stdin.write(b"\n")
            racer.stdin.flush()
        for origin, first in said:
            ring = tmp_path / f"{origin.decode()}{RING}"
            until(lambda ring=ring, first=first: last_of(ring) > int(first) + 5_000)
    finally:
        for racer in racers:
            racer.send_signal(signal.SIGKILL)
            racer.communicate()
    for origin, _ in said:
        kept = PredictionFiles(tmp_path, SIZE).borrow(origin.decode())
        numbers = np.fromfile(tmp_path / f"{kept.origin}{RING}", ROW, SIZE, offset=8192)["number"].tolist()
        assert sum(number > 0 for number in numbers) >= SIZE - 40
        for number in filter(None, numbers):
            answers = dict(kept.memory.find(number).answers)
            assert set(answers.values()) <= {number / 2, number * 3.0}
        kept.close()
    with taken_over(tmp_path) as after:
        assert after.first > last_of(tmp_path / f"{after.origin}{RING}")


def last_of(ring: Path) -> int:
    return int(np.fromfile(ring, "<i8", 1, offset=512)[0])


@settings(max_examples=50)
@given(data=st.data())
def test_whatever_sectors_a_lost_machine_had_written_an_answer_is_that_of_its_own_arm(tmp_path_factory, data):
    folder, states = tmp_path_factory.mktemp("files"), []
    with taken_over(folder, 40) as kept:
        ring, arms = folder / f"{kept.origin}{RING}", folder / f"{kept.origin}{ARMS}"
        for number in range(1, 91):
            arm = (STABLE, CANARY)[number % 2]
            keep(kept.memory, arm, [number])
            kept.memory.keep_shadow(SHADOWED, np.array([number]), np.array([number * 3.0]))
            if number % 30 == 0:
                states.append((ring.read_bytes(), arms.read_bytes()))
    wholes = [state[0] for state in states]
    pick = data.draw(st.lists(st.integers(0, 2), min_size=len(wholes[0]) // SECTOR, max_size=len(wholes[0]) // SECTOR))
    torn = b"".join(wholes[of][n * SECTOR : (n + 1) * SECTOR] for n, of in enumerate(pick))
    ring.write_bytes(torn + wholes[0][len(torn) :])
    arms.write_bytes(states[2][1][: data.draw(st.integers(0, len(states[2][1])))])
    with taken_over(folder, 40) as after:
        assert after.origin == kept.origin
        keep(after.memory, Arm("m", "9", Route.STABLE, Task.REGRESSION, ()), [after.first])
        for number in range(1, 91):
            found = after.memory.find(number)
            if found is not None:
                expected = ((STABLE, CANARY)[number % 2], number / 2), (SHADOWED, number * 3.0)
                assert found.answers in (expected, expected[:1])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda whole: b"", "it is no file of predictions"),
        (lambda whole: b"x" * len(whole), "it is no file of predictions"),
        (lambda whole: whole[:-1], "bytes instead of"),
        (lambda whole: whole[:20] + b"\xff" + whole[21:], "its header is damaged"),
        (lambda whole: whole[:8] + bytes([FORMAT + 1]) + whole[9:], f"it is of format {FORMAT + 1}"),
    ],
    ids=["empty", "foreign", "cut off", "damaged", "of a later format"],
)
def test_what_cannot_be_read_is_put_aside_with_a_warning_and_a_new_file_begun(tmp_path, caplog, damage, why):
    with taken_over(tmp_path) as before:
        keep(before.memory, STABLE, [1])
    ring = tmp_path / f"{before.origin}{RING}"
    ring.write_bytes(damage(ring.read_bytes()))
    with taken_over(tmp_path) as after:
        assert (after.origin != before.origin, after.first) == (True, 1)
        assert rings(tmp_path) == [after.origin]
    assert (tmp_path / f"{before.origin}{RING}{ASIDE}").exists()
    assert (tmp_path / f"{before.origin}{ARMS}{ASIDE}").exists()
    assert why in caplog.text


def test_a_damaged_file_that_is_asked_for_is_put_aside_too(tmp_path, caplog):
    with taken_over(tmp_path) as before:
        pass
    (tmp_path / f"{before.origin}{RING}").write_bytes(b"?")
    assert PredictionFiles(tmp_path, SIZE).borrow(before.origin) is None
    assert "is put aside" in caplog.text


def test_where_nothing_can_be_written_there_is_no_file_and_a_warning_says_what_that_means(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    assert PredictionFiles(tmp_path / "file", SIZE).take_over() is None
    assert "a restart forgets them" in caplog.text
    assert PredictionFiles(tmp_path / "none", 0).take_over() is None
    assert not (tmp_path / "none").exists()


def test_files_that_nobody_holds_are_kept_up_to_a_number_those_that_were_used_last(tmp_path):
    origins = []
    for minute in range(MOST_LEFT + 3):
        with taken_over(tmp_path, SIZE + minute) as kept:
            keep(kept.memory, STABLE, [1], minute=90_000_000 + minute)
            origins.append(kept.origin)
    (tmp_path / f"half{FRESH}").write_bytes(b"")
    with taken_over(tmp_path, 5) as own:
        assert set(rings(tmp_path)) == {own.origin, *origins[-MOST_LEFT:]}
    assert {path.stem for path in tmp_path.glob(f"*{ARMS}")} == set(origins[-MOST_LEFT:])
    assert not (tmp_path / f"half{FRESH}").exists()


def test_a_file_is_of_as_many_bytes_as_is_said_and_nobody_else_may_read_it(tmp_path):
    with taken_over(tmp_path, 10_000) as kept:
        keep(kept.memory, STABLE, [1])
        for end in (RING, ARMS):
            assert (tmp_path / f"{kept.origin}{end}").stat().st_mode & 0o777 == 0o600
        n_bytes = (tmp_path / f"{kept.origin}{RING}").stat().st_size
    assert n_bytes == n_bytes_of(10_000)
    assert BYTES_OF_ONE == ROW.itemsize + SHADOW.itemsize == 48
    assert 0 <= n_bytes - 10_000 * BYTES_OF_ONE < 3 * 4096
    assert SECTOR % ROW.itemsize == SECTOR % SHADOW.itemsize == 0, "a row lies in one sector"


def test_the_share_of_the_sample_is_that_of_the_time_of_the_prediction_or_more(tmp_path):
    with taken_over(tmp_path, 10, share=1.0) as kept:
        keep(kept.memory, STABLE, [1])
    with taken_over(tmp_path, 10, share=0.25) as kept:
        of_second = kept.first
        keep(kept.memory, STABLE, [of_second])
        assert (kept.memory.find(1).share, kept.memory.find(of_second).share) == (1.0, 0.25)
    with taken_over(tmp_path, 10, share=0.5) as kept:
        assert kept.memory.find(1).share == kept.memory.find(of_second).share == 1.0
        keep(kept.memory, STABLE, list(range(kept.first, kept.first + 11)))
    with taken_over(tmp_path, 10, share=0.125) as kept:
        assert kept.memory.find(of_second) is None, "all that are remembered are of the time of one half"
        assert kept.memory.find(last_of(tmp_path / f"{kept.origin}{RING}")).share == 0.5


def test_the_lock_ends_with_the_process_and_not_with_a_child_of_it(tmp_path):
    with taken_over(tmp_path) as kept:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
        ring = tmp_path / f"{kept.origin}{RING}"
    try:
        handle = os.open(ring, os.O_RDWR)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
    finally:
        child.communicate(b"\n")


def test_an_arm_has_the_same_number_again_when_its_line_was_lost_and_no_other_arm_gets_it(tmp_path):
    path = tmp_path / f"x{ARMS}"
    arms = Arms(path)
    numbers = {arm: arms.number_of(arm) for arm in (STABLE, CANARY, SHADOWED)}
    path.write_bytes(path.read_bytes()[:-5])
    again = Arms(path)
    assert again.find(numbers[SHADOWED]) is None
    assert again.number_of(Arm("n", "1", Route.STABLE, Task.REGRESSION, ())) not in numbers.values()
    assert again.number_of(SHADOWED) == numbers[SHADOWED]
    assert {arm: Arms(path).find(number) for arm, number in numbers.items()} == {arm: arm for arm in numbers}


def test_when_there_are_too_many_arms_all_is_forgotten_rather_than_any_mixed_up():
    arms = Arms()
    memory = Memory(ring_in_memory(4), arms)
    for version in range(60_000):
        arms.number_of(Arm("m", str(version), Route.STABLE, Task.REGRESSION, ()))
    keep(memory, Arm("m", "5", Route.STABLE, Task.REGRESSION, ()), [1])
    assert memory.find(1) is not None
    keep(memory, Arm("m", "60000", Route.STABLE, Task.REGRESSION, ()), [2])
    assert memory.find(1) is None
    assert memory.find(2).answers[0][0].version == "60000"
    assert (len(arms), memory.n_remembered) == (1, 1)
