"""Labels that are told later: after the server was killed, or to another server, they count once, in the right arm."""

import time
from datetime import UTC, datetime

import httpx
import pytest

from release_platform.adapters.servers import Servers
from release_platform.domain.windows import LABEL, Window, number_bucket
from release_platform.held_outcomes import HeldOutcomes
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until
from tests.fakes.serving_process import running_process

MODEL = "cancer"
PATH = f"/v1/models/{MODEL}/predict"
BODY = {"rows": [dict.fromkeys(CANCER_INPUTS, 1.5)]}
N = 5
WAITS = "1 outcome(s) wait for a server that knows their prediction"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return build_linear_classifier(tmp_path_factory.mktemp("package") / "1")


def predicted(url, n=N):
    answers = [httpx.post(f"{url}{PATH}", json=BODY).raise_for_status() for _ in range(n)]
    return [answer.headers["x-prediction-id"] for answer in answers], answers[0].json()["predictions"][0]


def tell(url, ids, label, **query):
    outcomes = [{"prediction_id": one, "label": label} for one in ids]
    return httpx.post(f"{url}/v1/outcomes", json=outcomes, params=query)


def labels_counted(url):
    """The labels of closed minutes, by version and route."""
    found = {}
    for replica in httpx.get(f"{url}/v1/windows").json()["replicas"]:
        for window in map(Window.from_json, replica["windows"]):
            for bucket, n in window.outcomes_since(LABEL, 0).items():
                key = (window.key.version, window.key.route, bucket)
                found[key] = found.get(key, 0) + n
    return found


def fates(url):
    lines = [line.split() for line in httpx.get(f"{url}/metrics").text.splitlines()]
    of = [line for line in lines if line and line[0].startswith("serving_outcome_fates_total{")]
    return {name.split('"')[1]: int(float(n)) for name, n in of if float(n)}


def remembers(url, n):
    return f"serving_remembered_predictions {float(n)}" in httpx.get(f"{url}/metrics").text


def test_a_label_that_is_told_after_the_server_was_killed_counts_once(tmp_path, package, monkeypatch):
    monkeypatch.setenv("FAKE_SPEED", "30")  # a minute takes two seconds
    with running_process(tmp_path, package=package) as server:
        until(lambda: httpx.get(f"{server.url}/readyz").is_success, within_s=60)
        ids, said = predicted(server.url)
        until(lambda: remembers(server.url, N))
        assert tell(server.url, ids[:1], said).json()["counted"] == 1
        server.process.kill()
        server.process.wait()
    with running_process(tmp_path, package=package) as server:
        until(lambda: httpx.get(f"{server.url}/readyz").is_success, within_s=60)
        told = tell(server.url, ids, said)
        assert (told.status_code, told.json()["counted"], told.json()["repeated"]) == (200, N - 1, ids[:1])
        assert tell(server.url, ids, said).json()["repeated"] == ids
        more, _ = predicted(server.url)
        assert {one.partition("-")[0] for one in (*ids, *more)} == {ids[0].partition("-")[0]}
        assert not {*ids} & {*more}
        right = number_bucket(0.0)
        until(lambda: labels_counted(server.url) == {("1", "stable", right): N - 1}, within_s=30)
        assert fates(server.url) == {"counted": N - 1, "repeated": N + 1}


def test_a_label_that_another_server_is_told_is_carried_to_the_one_that_made_the_prediction(tmp_path, package):
    registry = FakeRegistry({(MODEL, "1"): package}, aliases={(MODEL, "production"): "1"})
    with (
        running(settings_for(tmp_path / "a" / "cache"), registry) as here,
        running(settings_for(tmp_path / "b" / "cache"), registry) as there,
    ):
        until(lambda: all(httpx.get(f"{url}/readyz").is_success for url in (here, there)))
        ids, said = predicted(here)
        wrong = tell(there, ids, said)
        assert (wrong.status_code, wrong.json()["held"], wrong.json()["unknown"]) == (202, ids, [])
        assert tell(there, ids, said).json()["held"] == ids  # told twice, held once
        assert tell(there, ids, said, carried=True).json()["unknown"] == ids
        carrying = HeldOutcomes(Servers([here, there]))
        assert carrying.carry() == (f"{N} outcome(s) were carried to the server that made the prediction",)
        assert carrying.carry() == ()
        assert fates(here) == {"counted": N}
        assert fates(there) == {"held": N, "carried": N}
        assert tell(here, ids, said).json()["repeated"] == ids
        gone = "0123456789abcdef-1"
        assert tell(there, [gone], said).json()["held"] == [gone]
        away = HeldOutcomes(Servers([here, there, "http://127.0.0.1:9"]))
        assert away.carry()[0] == carrying.carry()[0] == WAITS


def test_what_no_server_knows_is_unknown_in_the_end_and_where_one_is_away_it_waits(tmp_path, package):
    registry = FakeRegistry({(MODEL, "1"): package}, aliases={(MODEL, "production"): "1"})
    clock = Late()
    with running(settings_for(tmp_path / "cache"), registry, clock=clock) as here:
        until(lambda: httpx.get(f"{here}/readyz").is_success)
        gone = "0123456789abcdef-1"
        tell(here, [gone], "benign")
        clock.later_s = 130.0
        assert HeldOutcomes(Servers([here, "http://127.0.0.1:9"])).carry()[0] == WAITS
        said = HeldOutcomes(Servers([here])).carry()
        assert said == ("1 outcome(s) are of predictions that no server knows",)
        assert fates(here) == {"held": 1, "unknown": 1}


class Late:
    """The machine's time, and so many seconds more."""

    def __init__(self):
        self.later_s = 0.0

    def now(self):
        return datetime.fromtimestamp(time.time() + self.later_s, UTC)
