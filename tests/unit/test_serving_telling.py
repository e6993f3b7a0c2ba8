"""Who is told an outcome finds who knows its prediction: itself, the file of who has ended, or another server."""

import asyncio
import gc
import json
import tracemalloc

import numpy as np
import pytest

from release_platform.domain.windows import LABEL, Route, number_bucket
from serving.held import MOST_LETTERS, Held
from serving.outcomes import Told
from serving.prediction_files import PredictionFiles
from serving.samples import Samples
from serving.siblings import Siblings
from serving.tallies import first_answer
from serving.telling import Desk
from tests.unit.test_serving_observations import ANSWER, CANARY, STABLE
from tests.unit.test_serving_observations import Server as Counting

FOREIGN = "0123456789abcdef"


class Server:
    """A server's desk with its own predictions; it ends in good order, or is just gone, as a killed one."""

    def __init__(self, folder, *, share=0.0, most_held=100, size=50):
        self.counting = Counting()
        self.seen, self.metrics = self.counting.seen, self.counting.metrics
        self.files = PredictionFiles(folder, size, share=share)
        self.kept = self.files.take_over()
        self.seen.remember_in(self.kept)
        self.held = Held(folder / "held.sqlite", now=lambda: self.counting.wall_s, most=most_held)
        self.samples = Samples(
            share=share,
            replica=self.seen.replica,
            origin=lambda: self.seen.origin,
            minute=lambda: self.seen.minute,
            windows=self.seen.windows_after,
            metrics=self.metrics,
        )
        self.desk = Desk(
            observations=self.seen,
            samples=self.samples,
            siblings=Siblings(None, self.seen.origin, lambda _: None),
            files=self.files,
            held=self.held,
            metrics=self.metrics,
        )

    def predict(self, version=STABLE, route=Route.STABLE):
        number = self.kept.first
        self.kept.first += 1
        self.seen.put_down((version, route, 0.0, self.counting.steady_s, "", *first_answer(ANSWER), number))
        return f"{self.seen.origin}-{number:x}"

    def tell(self, ids, value="yes", *, name=LABEL, carried=False):
        outcomes = [{"prediction_id": one, "name": name, "value": value} for one in ids]
        return asyncio.run(self.desk.tell(outcomes, carried=carried))

    def end(self):
        self.seen.end()
        self.kept.close()

    def counted(self):
        self.counting.pass_s(60)
        windows = [window for window in self.counting.told() if window.outcomes]
        return {(w.key.version, w.key.route.value): dict(w.outcomes_since(LABEL, 0)) for w in windows}

    def fates(self):
        lines = self.metrics.exposition().decode().splitlines()
        of = [line.split() for line in lines if line.startswith("serving_outcome_fates_total{")]
        return {name.split('"')[1]: int(float(n)) for name, n in of if float(n)}


def test_outcomes_told_after_a_restart_count_in_the_right_arm_and_only_once(tmp_path):
    before = Server(tmp_path)
    ids = [before.predict(), before.predict(CANARY, Route.CANARY)]
    assert before.tell(ids[:1], 2.0, name="cost").counted == 1
    before.end()
    after = Server(tmp_path)
    assert after.tell(ids[:1], 2.0, name="cost").repeated == (ids[0],)
    assert after.tell(ids[:1]).counted == after.tell(ids[1:], "no").counted == 1
    assert after.tell(ids).repeated == tuple(ids)
    assert not {after.predict(), after.predict()} & {*ids}
    right, wrong = number_bucket(0.0), number_bucket(1.0)
    assert after.counted() == {("1", "stable"): {right: 1}, ("2", "canary"): {wrong: 1}}
    assert after.fates() == {"counted": 2, "repeated": 3}


def test_of_a_worker_that_is_there_no_more_the_others_answer_and_leave_its_file_to_who_starts(tmp_path):
    one, other = Server(tmp_path), Server(tmp_path)
    ids = [other.predict()]
    assert one.tell(ids, carried=True).unknown == tuple(ids), "it is another server's as long as that lives"
    other.end()
    assert one.tell(ids).counted == 1
    assert one.tell(ids).repeated == tuple(ids)
    again = Server(tmp_path)
    assert again.seen.origin == other.seen.origin
    assert again.tell(ids).repeated == tuple(ids)


def test_a_label_that_is_told_after_a_restart_joins_its_recorded_row(tmp_path):
    before = Server(tmp_path, share=1.0)
    prediction = before.predict()
    before.end()
    after = Server(tmp_path, share=0.0)
    assert after.tell([prediction], "no").counted == 1
    assert after.tell([after.predict()]).counted == 1, "of a time in which nothing was sampled"
    after.counting.pass_s(60)
    told = json.loads(after.samples.closed_after(-1).body)
    (label,) = told["labels"]
    assert (label["prediction_id"], label["version"], label["label"]) == (prediction, "1", "no")


def test_what_nobody_here_knows_is_held_once_and_the_rest_of_the_body_counts(tmp_path):
    server = Server(tmp_path)
    own, forgotten = server.predict(), f"{server.seen.origin}-fffff"
    ids = [own, f"{FOREIGN}-1", f"{FOREIGN}-2", forgotten, "no id"]
    told = server.tell(ids)
    assert told == Told(counted=1, held=(ids[1], ids[2]), unknown=(forgotten, "no id"))
    assert server.tell(ids[1:2]).held == (ids[1],)
    assert server.fates() == {"counted": 1, "held": 2, "unknown": 2}
    offered = asyncio.run(server.desk.offer(10))
    assert {(one["prediction_id"], one["name"], one["outcome"]) for one in offered["held"]} == {
        (ids[1], LABEL, "yes"),
        (ids[2], LABEL, "yes"),
    }
    settled = asyncio.run(server.desk.settle([(ids[1], LABEL)], [(ids[2], LABEL), (ids[2], "other")]))
    assert settled == {"carried": 1, "unknown": 1}
    assert asyncio.run(server.desk.offer(10)) == {"held": [], "n_held": 0}
    assert server.fates() == {"counted": 1, "held": 2, "unknown": 3, "carried": 1}


def test_what_was_told_another_server_first_is_not_held_nor_counted_as_unknown(tmp_path):
    server = Server(tmp_path)
    assert server.tell([f"{FOREIGN}-1"], carried=True) == Told(unknown=(f"{FOREIGN}-1",))
    assert server.tell([server.predict()], carried=True).counted == 1
    assert server.fates() == {"counted": 1}


def test_when_too_many_are_held_the_others_are_to_be_told_again(tmp_path):
    server = Server(tmp_path, most_held=2)
    ids = tuple(f"{FOREIGN}-{n}" for n in range(4))
    assert server.tell(ids) == Told(held=ids[:2], unanswered=ids[2:])
    assert server.fates() == {"held": 2, "full": 2}


@pytest.mark.parametrize(("n_letters", "is_held"), [(MOST_LETTERS, True), (MOST_LETTERS + 1, False)])
def test_a_value_that_no_label_can_be_is_not_held(tmp_path, n_letters, is_held):
    told = Server(tmp_path).tell([f"{FOREIGN}-1"], "x" * n_letters)
    assert (bool(told.held), bool(told.unknown)) == (is_held, not is_held)


def test_however_many_predictions_are_made_and_outcomes_told_the_memory_does_not_grow(tmp_path):
    server = Server(tmp_path, size=2_000, most_held=50)
    arm = server.seen.arm_of(STABLE, Route.STABLE)

    def held_after(begin, rounds):
        for at in range(begin, begin + rounds):
            numbers = np.arange(at * 1_000 + 1, at * 1_000 + 1_001)
            server.kept.memory.keep(arm, 7, numbers, np.zeros(1_000))
            server.tell([f"{FOREIGN}-{at:x}{n:x}" for n in range(20)])
            server.tell([f"{server.seen.origin}-{at * 1_000 + 1:x}"])
        gc.collect()  # else each `asyncio.run` leaves cycles, as many as the collector of this process lets be
        held, _ = tracemalloc.get_traced_memory()
        return held

    held_after(0, 5)
    tracemalloc.start()
    try:
        before = held_after(5, 5)
        after = held_after(10, 60)
    finally:
        tracemalloc.stop()
    assert after - before < 30_000
    assert server.fates()["counted"] == 70
    assert len(server.held) == 50
