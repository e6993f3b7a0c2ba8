"""A server's life: promotions, refusals, a registry that is down, restarts, and its end."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.domain.api_keys import Scope
from tests.fakes.packages import CANCER_INPUTS, build_boosted_classifier, build_linear_classifier, build_regression
from tests.fakes.registry import FakeRegistry, push_of
from tests.fakes.server import running, settings_for, until, until_version

ROOT = Path(__file__).parents[2]
BODY = {"rows": [dict.fromkeys(CANCER_INPUTS, 1.5)]}
PATH = "/v1/models/cancer/predict"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    return {
        ("cancer", "1"): build_linear_classifier(root / "1"),
        ("cancer", "2"): build_boosted_classifier(root / "2"),
        ("cancer", "3"): build_linear_classifier(root / "3", n_rows=300),
        ("diabetes", "1"): build_regression(root / "4"),
    }


@pytest.fixture
def registry(built, tmp_path):
    copies = {
        (model, version): shutil.copytree(folder, tmp_path / "registry" / model / version)
        for (model, version), folder in built.items()
    }
    return FakeRegistry(copies, aliases={("cancer", "production"): "1"})


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def tamper(tmp_path, version):
    (tmp_path / "registry" / "cancer" / version / "model.skops").write_bytes(b"other bytes")


def status_of(client, model="cancer"):
    return client.get("/status").json()["models"][model]


def test_a_promotion_is_picked_up_without_a_restart_and_no_answer_is_mixed(registry, cache):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        answers, stop = [], threading.Event()

        def ask():
            with httpx.Client(base_url=url) as other:
                while not stop.is_set():
                    answers.append(other.post(PATH, json=BODY))

        asking = threading.Thread(target=ask)
        asking.start()
        for version in ("2", "3", "1", "2"):
            registry.set_alias("cancer", "production", version)
            until_version(client, "cancer", version)
        stop.set()
        asking.join()
        assert {answer.status_code for answer in answers} == {200}
        by_version = {}
        for answer in answers:
            said = answer.json()
            assert said["version"] == answer.headers["x-model-version"]
            by_version.setdefault(said["version"], set()).add((said["digest"], str(said["probabilities"])))
        assert set(by_version) == {"1", "2", "3"}
        assert all(len(said) == 1 for said in by_version.values())


def test_a_model_that_is_promoted_for_the_first_time_appears(registry, cache):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        assert client.get("/v1/models/diabetes").status_code == 503
        registry.set_alias("diabetes", "production", "1")
        until_version(client, "diabetes", "1")


def test_a_registry_that_is_down_stops_nothing(registry, cache):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        registry.down = True
        until(lambda: client.get("/status").json()["registry"]["reachable"] is False)
        assert client.post(PATH, json=BODY).status_code == 200
        assert client.get("/readyz").status_code == 200
        assert "serving_registry_reachable 0.0" in client.get("/metrics").text
        registry.down = False
        registry.set_alias("cancer", "production", "2")
        until_version(client, "cancer", "2")
        assert client.get("/status").json()["registry"]["problem"] is None


def test_after_a_restart_with_the_registry_down_the_last_version_answers(registry, cache):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        before = client.post(PATH, json=BODY).json()
        until((cache / "served" / "cancer.json").exists)
    registry.down = True
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        after = client.post(PATH, json=BODY).json()
        assert after.pop("prediction_id") != before.pop("prediction_id")
        assert after == before
        assert status_of(client)["origin"] == "disk"
        registry.down = False
        registry.set_alias("cancer", "production", "2")
        until_version(client, "cancer", "2")
        assert status_of(client)["origin"] == "registry"


class HangingRegistry(FakeRegistry):
    """Never answers, as a host that drops packets."""

    def models(self):
        threading.Event().wait(60)
        return []


def test_a_registry_that_hangs_delays_neither_the_restart_nor_the_end(registry, built, cache):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        until((cache / "served" / "cancer.json").exists)
    with running(settings_for(cache), HangingRegistry(built)) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        begun = time.monotonic()
    assert time.monotonic() - begun < 5


def test_a_copy_that_was_changed_on_disk_is_not_served_after_a_restart(registry, cache):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        until((cache / "served" / "cancer.json").exists)
    registry.down = True
    next(cache.rglob("model.skops")).write_bytes(b"other bytes")
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until(lambda: client.get("/status").json()["registry"]["reachable"] is False)
        time.sleep(0.3)
        assert client.get("/readyz").status_code == 503
        assert client.post(PATH, json=BODY).status_code == 503


def test_a_tampered_version_is_refused_while_the_last_good_one_goes_on(registry, cache, tmp_path):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        tamper(tmp_path, "2")
        registry.set_alias("cancer", "production", "2")
        until(lambda: status_of(client)["refusal"])
        refusal = status_of(client)["refusal"]
        assert (refusal["version"], refusal["kind"]) == ("2", "IntegrityError")
        assert "model.skops" in refusal["reason"]
        assert client.post(PATH, json=BODY).json()["version"] == "1"
        assert client.get("/readyz").status_code == 200
        metrics = client.get("/metrics").text
        assert 'serving_refusals_total{kind="IntegrityError",model="cancer"}' in metrics
        assert 'serving_model_refused{model="cancer"} 1.0' in metrics
    # also after a restart
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        until(lambda: status_of(client)["refusal"])
        registry.set_alias("cancer", "production", "3")
        until_version(client, "cancer", "3")
        assert status_of(client)["refusal"] is None


def test_files_that_cannot_be_had_hold_up_no_other_model_and_the_last_good_version_answers(registry, cache):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        until((cache / "served" / "cancer.json").exists)
    registry.without_files.add(("cancer", "2"))
    registry.set_alias("cancer", "production", "2")
    registry.set_alias("diabetes", "production", "1")
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "diabetes", "1")
        until_version(client, "cancer", "1")
        assert status_of(client)["refusal"]["kind"] == "Unavailable"
        assert client.get("/status").json()["registry"]["reachable"] is True
        registry.without_files.clear()
        until_version(client, "cancer", "2")


def test_a_deleted_alias_takes_nothing_down(registry, cache):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        registry.set_alias("cancer", "production", None)
        until(lambda: status_of(client)["refusal"])
        assert client.post(PATH, json=BODY).json()["version"] == "1"
        registry.set_alias("cancer", "production", "1")
        until(lambda: status_of(client)["refusal"] is None)


def test_ready_means_that_all_configured_models_are_loaded(registry, cache):
    settings = settings_for(cache, models=("cancer", "diabetes"))
    with running(settings, registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        unready = client.get("/readyz")
        assert unready.status_code == 503
        assert any("diabetes" in reason for reason in unready.json()["reasons"])
        registry.set_alias("diabetes", "production", "1")
        until(lambda: client.get("/readyz").status_code == 200)


def test_a_server_with_nothing_to_serve_lives_but_is_not_ready(cache):
    with running(settings_for(cache), FakeRegistry({})) as url, httpx.Client(base_url=url) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503


PROGRAM = """
import sys
from pathlib import Path
from serving.server import build_server
from serving.settings import Settings
from tests.fakes.registry import FakeRegistry, trust_signer
folder, cache, port = sys.argv[1:]
registry = FakeRegistry({("cancer", "1"): Path(folder)}, aliases={("cancer", "production"): "1"})
keys = trust_signer(Path(cache).parent / "keys")
build_server(Settings(cache_dir=cache, key_folder=keys, port=port, shutdown_s=2, drain_s=0.5), registry).run()
"""


@pytest.fixture
def process(built, cache):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [sys.executable, "-c", PROGRAM, str(built["cancer", "1"]), str(cache), str(port)]
    log = cache.with_suffix(".log")
    with log.open("w") as file, subprocess.Popen(arguments, cwd=ROOT, stderr=file) as started:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            until(lambda: _is_ready(client), within_s=60)
        try:
            yield started, port
            assert "Traceback" not in log.read_text()
        finally:
            started.kill()


def _is_ready(client):
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_loses_no_accepted_request(process, how):
    started, port = process
    body = b'{"rows": [{"mean radius": 1, "mean texture": 1, "mean area": 1}]}'
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode() + body[:5])
        until(lambda: _accepted(port))
        started.send_signal(how)
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 503)  # told before it stops listening
        time.sleep(0.7)
        connection.sendall(body[5:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert started.wait(15) == 0


def _accepted(port):
    # The server answers connections in order, so an answer to a later one shows that the earlier one is accepted.
    return httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200


def test_clients_that_never_end_their_request_do_not_keep_it_alive(process):
    started, port = process
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    for connection in held[:25]:
        connection.sendall(head.encode())
    for connection in held[25:]:
        connection.sendall(head.encode()[:20])
    until(lambda: _accepted(port))
    begun = time.monotonic()
    started.terminate()
    assert started.wait(15) == 0
    assert time.monotonic() - begun < 10
    for connection in held:
        connection.close()


def test_a_wrong_configuration_ends_with_status_2():
    done = subprocess.run(
        [sys.executable, "-m", "serving"],
        cwd=ROOT,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "SERVING_TRACKING_URI" in done.stderr


def test_a_move_that_one_of_several_workers_is_told_of_reaches_the_others_without_the_registry(registry, cache):
    settings = settings_for(cache, workers=2)
    with (
        running(settings, registry) as told,
        running(settings, registry) as beside,
        httpx.Client(base_url=told) as client,
        httpx.Client(base_url=beside) as other,
    ):
        for version in ("2", "1"):
            registry.set_alias("cancer", "production", version)
            until_version(client, "cancer", version)
            until_version(other, "cancer", version)
        push = push_of(registry.get_version("cancer", "2"), epoch=registry.epoch + 1)
        registry.down = True
        assert client.post("/v1/models/cancer/certificate", json=push.to_json()).status_code == 200
        until_version(other, "cancer", "2")
        assert status_of(other)["origin"] == "push"
        assert status_of(client)["epoch"] == status_of(other)["epoch"] == push.epoch


def test_the_previous_version_answers_who_names_it_until_the_next_move(registry, cache):
    with running(settings_for(cache), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        registry.set_alias("cancer", "production", "2")
        registry.set_alias("cancer", "previous", "1")
        until(lambda: status_of(client)["standby"] == "1")
        named = {v: client.post(f"/v1/models/cancer/versions/{v}/predict", json=BODY) for v in ("1", "2", "3")}
        assert [named[v].json().get("version") for v in ("1", "2")] == ["1", "2"]
        assert named["3"].status_code == 404
        assert named["3"].json()["type"].endswith("unknown-version")
        n_fetches = registry.n_fetches
        registry.set_alias("cancer", "previous", None)
        registry.set_alias("cancer", "production", "1")
        until_version(client, "cancer", "1")
        until(lambda: status_of(client)["standby"] is None)
        assert client.post("/v1/models/cancer/versions/2/predict", json=BODY).status_code == 404
        assert registry.n_fetches == n_fetches, "the way back is not fetched: it was kept warm"


def test_an_operator_has_the_registry_looked_at_now_and_nobody_else(registry, cache, tmp_path):
    file = ApiKeyFile(tmp_path / "api-keys.json")
    keys = {scope: file.create(scope.value, [scope])[1] for scope in (Scope.ADMIN, Scope.READ)}
    settings = settings_for(cache, refresh_s=3600, api_keys=tmp_path / "api-keys.json")
    with running(settings, registry) as url, httpx.Client(base_url=url) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        registry.set_alias("cancer", "production", "2")
        for key, status in ((None, 401), ("mrp_0_0", 401), (keys[Scope.READ], 403), (keys[Scope.ADMIN], 200)):
            headers = {} if key is None else {"x-api-key": key}
            answer = client.post("/admin/refresh", headers=headers)
            assert answer.status_code == status, answer.text
        assert answer.json()["models"]["cancer"]["version"] == "2"
