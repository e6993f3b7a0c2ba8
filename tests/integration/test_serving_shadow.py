"""A shadow over a real socket: asked after the answer, compared pair by pair, never heard of by a client."""

import json
import os
import re
import signal
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from scipy.stats import binom

from release_platform.domain.windows import EVERY_SLICE, NOT_FINITE, Window
from serving.mirroring import NICE
from serving.shadow import MOST_TOGETHER
from tests.fakes.clock import FakeClock
from tests.fakes.packages import ONNX_INPUTS, build_onnx_classifier, build_regression, build_typed_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until

QUICK, TYPED, SLOW = "quick", "typed", "slow"
MODELS = (QUICK, TYPED, SLOW)
START = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
N = 24


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    return {
        (QUICK, "1"): build_onnx_classifier(root / "q1", model=QUICK),
        (QUICK, "2"): build_onnx_classifier(root / "q2", model=QUICK, n_rows=100),
        (TYPED, "1"): build_typed_classifier(root / "t1"),
        (TYPED, "2"): build_typed_classifier(root / "t2", shift=1),
        (SLOW, "1"): build_regression(root / "s1", model=SLOW),
        (SLOW, "2"): build_regression(root / "s2", model=SLOW, overflows=True),
    }


class Served:
    """A server on which each model has a shadow that is asked everything, seen by a client."""

    def __init__(self, client, clock, registry):
        self.client = client
        self.clock = clock
        self.registry = registry
        self.n_before = {}

    def begin(self):
        """Begins a new minute, with every shadow as it was."""
        for model in MODELS:
            self.registry.put_beside(model, "shadow", "2", 1.0)
            self.registry.set_alias(model, "canary", None)
        until(lambda: all(weight_of(self.client, model) == 1.0 for model in MODELS))
        until(lambda: all("canary" not in routes_of(self.client, model) for model in MODELS))
        n_slow = n_asked(self.client, SLOW)
        self.post(SLOW, [{"bmi": 0.1, "bp": 0.1}])  # its turn comes after all that wait yet
        until(lambda: n_asked(self.client, SLOW) > n_slow, within_s=300)
        self.windows()
        self.clock.pass_s(60)
        self.n_before = {model: n_asked(self.client, model) for model in MODELS}

    def post(self, model, rows, path="predict"):
        return self.client.post(f"/v1/models/{model}/{path}", json={"rows": rows})

    def n_asked(self, model):
        return n_asked(self.client, model) - self.n_before[model]

    def windows(self):
        (replica,) = self.client.get("/v1/windows").json()["replicas"]
        return [Window.from_json(window) for window in replica["windows"]]

    def shadow(self, model, n=N):
        """Returns the window of a shadow once it was asked so often."""
        until(lambda: self.n_asked(model) == n, within_s=300)
        self.clock.pass_s(60)
        found = {w.key.minute: w for w in self.windows() if (w.key.model, w.key.route) == (model, "shadow")}
        assert found[max(found)].key.version == "2"
        return found[max(found)]


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "declared"])
def started(request, built, tmp_path_factory):
    registry = FakeRegistry(built, aliases={(model, "production"): "1" for model in MODELS})
    clock = FakeClock(START)
    settings = settings_for(tmp_path_factory.mktemp("cache") / "cache", fast_path=request.param)
    with running(settings, registry, clock=clock) as url, httpx.Client(base_url=url) as client:
        yield Served(client, clock, registry)


@pytest.fixture
def served(started):
    started.begin()
    return started


def weight_of(client, model):
    return routes_of(client, model).get("shadow", {}).get("weight")


def routes_of(client, model):
    return client.get("/status").json()["models"].get(model, {}).get("routes", {})


def n_asked(client, model):
    """Returns how often a shadow was asked, as far as the metrics say."""
    lines = re.findall(r"^serving_routed_requests_total{(.*)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(float(n) for labels, n in lines if f'"{model}"' in labels and '"shadow"' in labels)


def rows_of(n):
    rng = np.random.default_rng(1)
    return [dict(zip(ONNX_INPUTS, row, strict=True)) for row in (rng.uniform(5, 25, (n, 3)) * (1, 1, 40)).tolist()]


def test_pairs_are_compared_and_only_production_answers(served):
    rows = rows_of(N)
    answers = [served.post(QUICK, [row]) for row in rows]
    assert {(a.headers["x-model-version"], a.headers["x-model-route"]) for a in answers} == {("1", "stable")}
    window = served.shadow(QUICK)
    assert (window.requests, window.errors, window.pairs) == (N, {}, {EVERY_SLICE: N})
    served.registry.put_beside(QUICK, "canary", "2", 1.0)
    until(lambda: "canary" in routes_of(served.client, QUICK))
    would = [served.post(QUICK, [row]).json()["predictions"][0] for row in rows]
    said = [answer.json()["predictions"][0] for answer in answers]
    differing = Counter(f"{a} -> {b}" for a, b in zip(said, would, strict=True) if a != b)
    assert differing
    assert window.flips == {EVERY_SLICE: dict(differing)}


def test_pairs_are_told_by_slice_of_texts_and_truths(served, built):
    golden = json.loads((built[TYPED, "1"] / "golden.json").read_text())["inputs"]
    rows = [{name: values[n % 5] for name, values in golden.items()} for n in range(N)]
    for row in rows:
        assert served.post(TYPED, [row, row]).json()["version"] == "1"
    window = served.shadow(TYPED)
    assert window.pairs[EVERY_SLICE] == N
    by_carrier = Counter(f"carrier={row['carrier']}" for row in rows)
    by_flag = Counter(f"flag={str(row['flag']).lower()}" for row in rows)
    assert {name: n for name, n in window.pairs.items() if name} == by_carrier | by_flag
    assert set(window.flips) <= set(window.pairs)


def test_what_a_shadow_fails_is_counted_and_no_client_is_told(served):
    for n in range(N):
        assert served.post(SLOW, [{"bmi": 1e30 if n % 2 else 0.1, "bp": 0.1}]).status_code == 200
    window = served.shadow(SLOW)
    assert (window.requests, window.errors) == (N, {NOT_FINITE: N // 2})
    assert window.pairs == {EVERY_SLICE: N // 2}


def test_every_protocol_is_mirrored_and_what_names_its_version_is_not(served):
    row = rows_of(1)[0]
    tensors = [{"name": name, "shape": [1], "datatype": "FP64", "data": [row[name]]} for name in ONNX_INPUTS]
    assert served.client.post(f"/v2/models/{QUICK}/infer", json={"inputs": tensors}).is_success
    assert served.client.post(f"/v1/models/{QUICK}/invocations", json={"inputs": [row]}).is_success
    assert served.post(QUICK, [row], "versions/1/predict").is_success
    assert served.post(QUICK, [{"x": 1}]).status_code == 422
    assert served.shadow(QUICK, 2).pairs == {EVERY_SLICE: 2}


def test_the_share_is_what_was_asked(served):
    served.registry.put_beside(QUICK, "shadow", "2", 0.3)
    until(lambda: weight_of(served.client, QUICK) == 0.3)
    for row in rows_of(200):
        assert served.post(QUICK, [row]).is_success
    lowest, highest = binom.interval(0.999, 200, 0.3)
    until(lambda: served.n_asked(QUICK) >= lowest, within_s=300)
    assert served.n_asked(QUICK) <= highest


def mirrors():
    """Returns the processes of shadows of this test."""
    listed = (path.read_text().split() for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"))
    pids = [int(pid) for several in listed for pid in several]
    return [pid for pid in pids if b"serving.mirroring" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_process_that_dies_fails_nobody_and_another_is_asked_what_it_was_asked(served):
    (row,) = rows_of(1)
    assert served.post(QUICK, [row]).is_success
    until(lambda: served.n_asked(QUICK) == 1, within_s=300)
    (pid,) = mirrors()
    assert os.getpriority(os.PRIO_PROCESS, pid) >= min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, 19)
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    assert os.SCHED_IDLE in map(os.sched_getscheduler, threads)
    os.kill(pid, signal.SIGSTOP)
    for _ in range(MOST_TOGETHER):
        assert served.post(QUICK, [row]).is_success
    os.kill(pid, signal.SIGKILL)
    assert served.post(QUICK, [row]).is_success
    window = served.shadow(QUICK, MOST_TOGETHER + 2)
    assert (window.errors, window.pairs) == ({}, {EVERY_SLICE: MOST_TOGETHER + 2})


def test_the_process_ends_with_the_server(built, tmp_path):
    registry = FakeRegistry(built, aliases={(QUICK, "production"): "1"})
    registry.put_beside(QUICK, "shadow", "2", 1.0)
    others = mirrors()
    with running(settings_for(tmp_path / "cache"), registry) as url, httpx.Client(base_url=url) as client:
        until(lambda: weight_of(client, QUICK) == 1.0)
        assert client.post(f"/v1/models/{QUICK}/predict", json={"rows": rows_of(1)}).is_success
        until(lambda: len(mirrors()) == len(others) + 1)
    assert mirrors() == others
