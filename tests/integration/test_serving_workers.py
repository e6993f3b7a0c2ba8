"""Several workers are one server to whoever asks."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.golden_answers import run_golden
from release_platform.adapters.live_verification import verify_live
from release_platform.adapters.serving_client import ServingClient
from release_platform.domain.api_keys import Scope
from release_platform.domain.verification import Expected
from serving.workers import SOON_S
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier, manifest_of
from tests.fakes.raw_client import RawClient, request
from tests.fakes.server import until
from tests.fakes.serving_process import ROOT, running_process

BODY = {"rows": [dict.fromkeys(CANCER_INPUTS, 1.5)]}
PATH = "/v1/models/cancer/predict"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return build_linear_classifier(tmp_path_factory.mktemp("package") / "1")


@pytest.fixture
def server(tmp_path):
    with running_process(tmp_path, workers=2) as started:
        until(lambda: len(answering(started)) == 2, within_s=60)
        yield started


def asked_together(server, n_asked=64):
    """Opens connections at the same time, asks once on each, and returns who answered each."""
    with ExitStack() as held:
        clients = [held.enter_context(RawClient(server.port)) for _ in range(n_asked)]
        return [int(client.get("/pid").body) for client in clients]


def answering(server):
    """Returns the process ids that answer on new connections."""
    return set(asked_together(server))


def refuses(server):
    """Whether nobody listens any more."""
    try:
        with RawClient(server.port):
            return False
    except OSError:
        return True


def state(pid):
    """The letter of a process's state (Z: nobody has waited for it yet, T: stopped), or None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


def is_gone(pid):
    return state(pid) in {None, "Z"}


def test_all_workers_answer_from_the_same_model(tmp_path, package):
    with running_process(tmp_path, package=package, workers=2) as server:
        until(lambda: len(answering(server)) == 2, within_s=60)

        def all_ready():
            return all(httpx.get(f"{server.url}/readyz").status_code == 200 for _ in range(40))

        until(all_ready, within_s=30)
        answers = [httpx.post(f"{server.url}{PATH}", json=BODY) for _ in range(40)]
        assert {answer.status_code for answer in answers} == {200}
        assert len({json.dumps(answer.json() | {"prediction_id": ""}) for answer in answers}) == 1
        assert len({answer.json()["prediction_id"] for answer in answers}) == 40


def test_connections_that_are_opened_together_are_shared_out(server):
    def fewest():
        pids = asked_together(server, 64)
        return min(pids.count(pid) for pid in server.worker_ids())

    # A worker that a busy machine does not let run for long is not waited for.
    assert max(fewest() for _ in range(3)) >= 24


def test_a_worker_that_hangs_takes_no_new_connection_and_the_other_answers_all(server):
    hung, other = server.worker_ids()
    os.kill(hung, signal.SIGSTOP)
    until(lambda: state(hung) == "T", within_s=5)
    assert set(asked_together(server, 64)) == {other}
    os.kill(hung, signal.SIGCONT)
    until(lambda: hung in answering(server))


def test_connections_that_wait_when_all_are_told_to_end_are_served(server):
    with ExitStack() as held:
        by_pid = {}

        def has_one_of_each():
            client = held.enter_context(RawClient(server.port))
            by_pid.setdefault(client.get("/pid").body, client)
            return len(by_pid) == 2

        until(has_one_of_each)
        blocking = by_pid.values()
        for client in blocking:
            client.send(request("/block?seconds=1"))
        time.sleep(0.3)
        waiting = [held.enter_context(RawClient(server.port)) for _ in range(50)]
        for client in waiting:
            client.send(request("/livez"))
        server.process.send_signal(signal.SIGTERM)
        assert {client.answer().status for client in (*blocking, *waiting)} == {200}
    assert server.ended_within(20) < 20
    assert server.process.returncode == 0


def test_every_worker_behind_a_port_is_met(tmp_path, package):
    with running_process(tmp_path, package=package, workers=2) as server:
        until(lambda: len(answering(server)) == 2, within_s=60)
        until(lambda: all(httpx.get(f"{server.url}/readyz").is_success for _ in range(20)), within_s=30)
        manifest = manifest_of(package)
        golden = run_golden(package, manifest)
        expected = Expected(model="cancer", version="1", digest=manifest.digest, epoch=1, golden=golden)
        for _ in range(10):
            with ServingClient(server.url) as client:
                report = verify_live(client, expected)
            assert (report.problems, report.unavailable, report.n_workers) == ((), None, 2)
        assert len(set(httpx.get(f"{server.url}/status").json()["server"]["workers"])) == 2
        os.kill(next(iter(server.worker_ids())), signal.SIGSTOP)
        with ServingClient(server.url, timeout_s=5) as client:
            stopped = verify_live(client, expected)
        assert stopped.unavailable is not None


def test_metrics_count_over_all_workers(server):
    before = all_counted(server)
    assert len(set(asked_together(server))) == 2
    for _ in range(10):  # whoever is asked
        until(lambda: n_counted(server) == before + 64)
        assert httpx.get(f"{server.url}/metrics").text.count("\nserving_registry_reachable ") == 1


SPEED = 20
"""How often a minute of these servers passes in a real one."""


@pytest.fixture
def quick_minutes(monkeypatch, tmp_path, package):
    """A server of two workers that have one model, whose minutes take three seconds."""
    monkeypatch.setenv("FAKE_SPEED", str(SPEED))
    with running_process(tmp_path, package=package, workers=2) as started:
        until(lambda: len(answering(started)) == 2, within_s=60)
        until(lambda: all(httpx.get(f"{started.url}/readyz").is_success for _ in range(20)), within_s=30)
        yield started


def replicas(server, after=-1):
    told = httpx.get(f"{server.url}/v1/windows", params={"after": after}).json()
    assert told["silent"] == 0
    return {replica["replica"]: replica["windows"] for replica in told["replicas"]}


def test_whichever_worker_is_asked_the_windows_of_all_are_told(quick_minutes):
    server, ids = quick_minutes, []
    with ExitStack() as held:
        for _ in range(32):
            client = held.enter_context(httpx.Client(base_url=server.url))
            answer = client.post(PATH, json=BODY)
            ids.append(answer.json()["prediction_id"])
        assert len({one.partition("-")[0] for one in ids}) == 2
        outcomes = [{"prediction_id": one, "label": "benign"} for one in ids]
        told = client.post("/v1/outcomes", json=outcomes).json()  # whichever worker made the predictions
        assert (told["counted"], told["unknown"], told["unanswered"]) == (32, [], [])
        assert len(client.post("/v1/outcomes", json=outcomes).json()["repeated"]) == 32
    until(lambda: n_in_windows(server) == 32, within_s=20)
    for _ in range(10):
        assert len(replicas(server)) == 2
        assert n_in_windows(server) == 32
    assert all(sum(window["requests"] for window in windows) > 0 for windows in replicas(server).values())
    labels = [
        window["outcomes"]["label"] for windows in replicas(server).values() for window in windows if window["outcomes"]
    ]
    assert sum(sum(counts.values()) for by_age in labels for counts in by_age.values()) == 32
    before = set(replicas(server))
    os.kill(server.worker_ids()[0], signal.SIGKILL)  # one that died is not waited for
    until(lambda: len(set(replicas(server)) - before) == 1, within_s=60)
    assert len(replicas(server)) == 2
    told = httpx.post(f"{server.url}/v1/outcomes", json=outcomes).json()
    assert (told["unknown"], told["unanswered"]) == ([], [])
    assert set(told["repeated"]) == set(ids), "the one that was started instead knows what came before"


def n_in_windows(server):
    return sum(window["requests"] for windows in replicas(server).values() for window in windows)


def all_counted(server):
    """Returns what is counted once nothing changes any more: each worker counts what it put down every second."""
    seen = []

    def steady():
        seen.append((time.monotonic(), n_counted(server)))
        now, counted = seen[-1]
        return any(moment < now - 1.5 and before == counted for moment, before in seen)

    until(steady)
    return seen[-1][1]


def n_counted(server):
    text = httpx.get(f"{server.url}/metrics").text
    lines = re.findall(r"^serving_requests_total{(.*)} (\S+)$", text, re.MULTILINE)
    return sum(float(number) for labels, number in lines if 'route="/pid"' in labels)


def test_a_worker_that_dies_is_started_again_and_what_it_counted_is_kept(server):
    for _ in range(20):
        httpx.get(f"{server.url}/pid")
    counted = all_counted(server)
    assert counted >= 20
    victim, other = server.worker_ids()
    os.kill(victim, signal.SIGKILL)
    until(lambda: is_gone(victim))
    for _ in range(20):  # the other one goes on
        assert httpx.get(f"{server.url}/livez").status_code == 200
    assert n_counted(server) == counted
    until(lambda: len(answering(server) - {victim, other}) == 1, within_s=60)
    assert other in answering(server)


def test_a_worker_that_is_told_to_end_does_so_in_good_order_and_another_takes_its_place(server):
    leaver, other = server.worker_ids()
    failures, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                if httpx.get(f"{server.url}/livez").status_code != 200:
                    failures.append("status")
            except httpx.TransportError as error:
                failures.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    os.kill(leaver, signal.SIGTERM)
    until(lambda: is_gone(leaver), within_s=20)
    until(lambda: len(answering(server) - {leaver, other}) == 1, within_s=60)
    stop.set()
    asking.join()
    assert failures == []


def test_when_the_supervisor_is_killed_the_workers_end_and_nobody_listens(server):
    workers = server.worker_ids()
    with RawClient(server.port) as client:
        client.send(b"GET /slow?seconds=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        os.kill(server.process.pid, signal.SIGKILL)
        assert client.answer().status == 200  # in good order
    until(lambda: refuses(server), within_s=10)
    until(lambda: all(is_gone(pid) for pid in workers), within_s=20)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all(server, how):
    workers = server.worker_ids()
    server.process.send_signal(how)
    assert server.ended_within(20) < 20
    assert server.process.returncode == 0
    assert all(is_gone(pid) for pid in workers)
    assert refuses(server)


def test_a_worker_that_ignores_everything_is_killed_in_time(tmp_path):
    with running_process(tmp_path, workers=2, shutdown_s=1) as server:
        until(lambda: len(answering(server)) == 2, within_s=60)  # one that still starts is ended by the signal
        stopped = server.worker_ids()[0]
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: state(stopped) == "T", within_s=5)
        server.process.send_signal(signal.SIGTERM)
        assert server.ended_within(20) < 10
        assert server.process.returncode == 1
        assert is_gone(stopped)


def serve_in_vain(**environment):
    return subprocess.run(
        [sys.executable, "-m", "serving"],
        cwd=ROOT,
        env={"SERVING_WORKERS": "2", "SERVING_PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_configuration_that_no_worker_can_start_with_ends_the_supervisor(tmp_path):
    done = serve_in_vain(SERVING_CACHE_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "SERVING_TRACKING_URI" in done.stderr


def test_a_folder_for_sockets_whose_path_is_too_long_ends_the_supervisor(tmp_path):
    folder = tmp_path / ("x" * 60)
    folder.mkdir()
    done = serve_in_vain(SERVING_CACHE_DIR=str(tmp_path), TMPDIR=str(folder))
    assert done.returncode == 2
    assert "TMPDIR" in done.stderr


def test_a_worker_that_cannot_start_again_does_not_end_the_one_that_is_well(tmp_path):
    keys = tmp_path / "api-keys.json"
    key = ApiKeyFile(keys).create("ada", [Scope.READ])[1]
    good = keys.read_bytes()
    with (
        running_process(tmp_path, workers=2, api_keys=keys) as server,
        ServingClient(server.url, api_key=key) as client,
    ):
        until(lambda: len(client.workers()) == 2, within_s=60)
        time.sleep(SOON_S + 1)  # they are beyond their start
        keys.write_text("{")
        dead, well = server.worker_ids()
        os.kill(dead, signal.SIGKILL)
        until(lambda: "a worker ended with status 2; another is started" in server.log.read_text(), within_s=30)
        assert len(client.workers()) == 1
        keys.write_bytes(good)
        until(lambda: len(client.workers()) == 2, within_s=60)
        assert well in server.worker_ids()


def test_a_worker_that_there_is_no_room_for_is_started_later(tmp_path):
    with running_process(tmp_path, workers=2) as server:
        until(lambda: len(answering(server)) == 2, within_s=60)
        was = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, was[1]))
        os.kill(server.worker_ids()[0], signal.SIGKILL)
        until(lambda: "a worker could not be started: " in server.log.read_text(), within_s=30)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, was)
        until(lambda: len(answering(server)) == 2, within_s=60)
