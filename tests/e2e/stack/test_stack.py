"""The life of a model in the container stack, and the death of every container, as its users live it."""

import json
import re
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack.stack import Stack, until
from tests.e2e.stack.traffic import Traffic, flowing

MODEL = "breast_cancer"
CONTROL_PLANE = (
    "postgres",
    "minio",
    "mlflow",
    "dagster-code",
    "dagster-daemon",
    "dagster-webserver",
    "dagster-readonly",
    "api",
)
REPLICAS = ("serving-1", "serving-2")
TERMINATE = {"query": 'mutation { terminateRun(runId: "none") { __typename } }'}


# What was brought up


def test_every_server_is_well_and_every_job_ended_well(stack: Stack) -> None:
    containers = stack.containers()
    assert set(stack.servers()) == {*CONTROL_PLANE, *REPLICAS, "proxy"}
    assert {one["State"]["Health"]["Status"] for one in stack.servers().values()} == {"healthy"}
    jobs = set(containers) - set(stack.servers())
    assert jobs == {"volumes", "setup", "migrate-release", "migrate-dagster", "migrate-mlflow"}
    assert {containers[job]["State"]["ExitCode"] for job in jobs} == {0}


def test_no_server_is_root_or_may_become_it_or_write_to_its_image(stack: Stack) -> None:
    for name, one in stack.servers().items():
        status = stack.compose("exec", "-T", name, "cat", "/proc/1/status")
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert "0" not in uids, name
        assert one["HostConfig"]["ReadonlyRootfs"], name
        assert one["HostConfig"]["CapDrop"] == ["ALL"], name


def test_only_the_proxy_and_the_console_are_published_on_loopback(stack: Stack) -> None:
    published = {
        name: {binding["HostIp"] for bound in one["NetworkSettings"]["Ports"].values() for binding in bound or ()}
        for name, one in stack.servers().items()
    }
    assert {name for name, addresses in published.items() if addresses} == {"proxy", "minio"}
    assert published["proxy"] == published["minio"] == {"127.0.0.1"}


def test_serving_knows_no_secret_and_reaches_no_database(stack: Stack) -> None:
    secrets = {value for name, value in stack.settings.items() if name.endswith(("PASSWORD", "SECRET", "KEY"))}
    for replica in REPLICAS:
        told = json.dumps(stack.containers()[replica]["Config"]["Env"])
        assert not {secret for secret in secrets - {stack.settings["S3_ACCESS_KEY"]} if secret in told}
        assert "signing.pem" not in stack.compose("exec", "-T", replica, "find", "/keys")
    forbidden = [
        (network["IPAddress"], port)
        for server, port in {"postgres": 5432, "minio": 9000, "mlflow": 5050, "dagster-code": 4000}.items()
        for name, network in stack.containers()[server]["NetworkSettings"]["Networks"].items()
        if not name.endswith("_serving")
    ]
    reach = f"import socket; print([one for one in {forbidden} if not socket.socket().connect_ex(one)])"
    assert len(forbidden) == 6
    assert _python(stack, "serving-1", f"import socket; socket.setdefaulttimeout(1); {reach}").strip() == "[]"
    assert _python(stack, "mlflow", reach) != "[]"


def _python(stack: Stack, service: str, code: str) -> str:
    return stack.compose("exec", "-T", service, "python", "-c", code, check=False)


def test_the_jobs_may_run_again_on_the_volumes_that_there_are(stack: Stack) -> None:
    said = stack.compose("run", "--rm", "--no-deps", "setup").splitlines()
    assert said[-1].endswith(" signs")
    assert said[-1] in stack.compose("logs", "--no-log-prefix", "setup")
    assert "may read and append" in stack.compose("run", "--rm", "--no-deps", "migrate-release")


# Who may do what


def test_without_a_login_dagster_shows_everything_and_changes_nothing(stack: Stack) -> None:
    url = f"{stack.url('dagster')}/graphql"
    assert httpx.get(f"{stack.url('dagster')}/server_info", timeout=60).is_success
    said = httpx.post(url, json=TERMINATE, timeout=60).json()["data"]["terminateRun"]["__typename"]
    assert said == "UnauthorizedError"
    said = httpx.post(url, json=TERMINATE, auth=stack.operator, timeout=60).json()["data"]["terminateRun"]["__typename"]
    assert said == "RunNotFoundError"
    assert httpx.post(url, json=TERMINATE, auth=("operator", "guess"), timeout=60).status_code == 401


def test_a_person_whom_an_outer_proxy_names_is_believed_with_its_secret_only(stack: Stack) -> None:
    url, named = f"{stack.url('dagster')}/graphql", {"x-forwarded-user": "ada"}
    secret = stack.settings["PROXY_SHARED_SECRET"]
    said = [
        httpx.post(url, json=TERMINATE, headers=named | more, timeout=60).json()["data"]["terminateRun"]["__typename"]
        for more in ({}, {"x-proxy-secret": ""}, {"x-proxy-secret": secret})
    ]
    assert said == ["UnauthorizedError", "UnauthorizedError", "RunNotFoundError"]


@pytest.mark.parametrize(("method", "path"), [("POST", "experiments/create"), ("PATCH", "registered-models/update")])
def test_without_a_login_mlflow_is_read_only(stack: Stack, method: str, path: str) -> None:
    url = f"{stack.url('mlflow')}/api/2.0/mlflow/{path}"
    assert httpx.request(method, url, json={"name": "x"}, timeout=60).status_code == 401
    assert httpx.request(method, url, json={"name": "x"}, auth=stack.operator, timeout=60).status_code != 401


def test_artefacts_are_read_by_everybody_and_written_by_operators(stack: Stack) -> None:
    url = f"{stack.url('mlflow')}/api/2.0/mlflow-artifacts/artifacts/tried/file.txt"
    assert httpx.put(url, content=b"x", timeout=60).status_code == 401
    assert httpx.put(url, content=b"x", auth=stack.operator, timeout=60).status_code == 200
    assert httpx.get(url, timeout=60).content == b"x"
    assert httpx.delete(url, timeout=60).status_code == 401
    assert httpx.delete(url, auth=stack.operator, timeout=60).is_success


@pytest.mark.parametrize("name", ["dagster", "mlflow"])
def test_another_host_name_or_another_sites_page_is_refused(stack: Stack, name: str) -> None:
    url = f"{stack.url(name)}/graphql"
    assert httpx.get(url, headers={"host": "evil.example"}, timeout=60).status_code == 421
    headers = {"origin": "http://evil.example"}
    assert httpx.post(url, json=TERMINATE, headers=headers, auth=stack.operator, timeout=60).status_code == 403


def test_a_role_opens_its_own_database_only(stack: Stack) -> None:
    for role, own in (("dagster_db", "dagster"), ("mlflow_db", "mlflow"), ("release_db", "release")):
        assert stack.sql(role, own, "SELECT 1").strip() == "1"
        for other in {"dagster", "mlflow", "release", "postgres"} - {own}:
            assert "permission denied for database" in stack.sql(role, other, "SELECT 1")


# The life of a model


def test_a_release_is_launched_by_an_operator_in_dagster(stack: Stack) -> None:
    assert stack.served(MODEL) is None
    stack.launch(f"release_{MODEL}")
    assert stack.sql("release_db", "release", "SELECT version FROM registrations").strip() == "1"


def test_a_promotion_is_asked_for_in_dagster_and_carried_out_by_the_sensor(stack: Stack) -> None:
    form = {"model": MODEL, "actor": "ada", "reason": "first release"}
    stack.launch("request_promotion", {"ops": {"open_request": {"config": form}}})
    until(lambda: stack.served(MODEL) == "1", within_s=240)
    moves = stack.sql("release_db", "release", "SELECT move, actor FROM ledger ORDER BY epoch").split()
    assert moves[-1] == f"promoted|{stack.operator[0]}", "the name is that of the key, not the one in the form"


def test_the_smoke_test_passes_on_every_replica_and_through_the_proxy(stack: Stack) -> None:
    said = stack.make("smoke-test", MODEL=MODEL)
    assert [f"at http://{name}:8000" in said for name in (*REPLICAS, "proxy")] == [True] * 3


def test_to_predict_takes_a_key_and_an_application_gets_one_of_its_own(stack: Stack) -> None:
    url = f"{stack.url('serving')}/v1/models/{MODEL}"
    example = httpx.get(url, headers=stack.shown, timeout=60).json()["example"]
    assert httpx.get(f"{stack.url('serving')}/readyz", timeout=60).is_success
    assert httpx.post(f"{url}/predict", json=example, timeout=60).status_code == 401
    key = stack.compose("run", "--rm", "--no-deps", "cli", "api-key", "create", "shop", "--scope", "predict").split()[
        -1
    ]
    mine = {"x-api-key": key}
    until(lambda: httpx.post(f"{url}/predict", headers=mine, json=example, timeout=60).is_success, within_s=30)
    # The other replica may learn of the key a moment later.
    until(lambda: httpx.get(f"{stack.url('serving')}/status", headers=mine, timeout=60).status_code == 403, within_s=30)


def test_nobody_changes_a_row_of_the_ledger(stack: Stack) -> None:
    for statement in ("UPDATE ledger SET actor = 'eve'", "DELETE FROM ledger", "TRUNCATE ledger"):
        assert "permission denied for table ledger" in stack.sql("release_db", "release", statement)
        assert "the ledger is append-only" in stack.sql("release_db_owner", "release", statement)


def test_artefacts_and_snapshots_are_in_the_bucket_which_keeps_versions(stack: Stack) -> None:
    look = (
        "import boto3; s3 = boto3.client('s3'); name = 'release'; "
        "print(s3.get_bucket_versioning(Bucket=name)['Status'], "
        "sorted({o['Key'].split('/')[0] for o in s3.list_objects_v2(Bucket=name)['Contents']}))"
    )
    assert "Enabled ['mlflow', 'snapshots']" in _python(stack, "mlflow", look)


# The death of every container


def test_no_request_fails_while_every_container_but_the_proxy_is_killed_and_started_again(stack: Stack) -> None:
    with traffic_of(stack) as traffic:
        for service in CONTROL_PLANE:
            stack.kill(service)
            _let_some_be_answered(traffic)
            stack.start(service)
        for service in REPLICAS:
            stack.kill(service)
            _let_some_be_answered(traffic)
            stack.start(service)
            _wait_until_ready(stack, service)
    print(f"\n{traffic.answered} requests answered, slowest {traffic.slowest_s:.2f} s, failed: {traffic.failures}")
    assert traffic.failures == []
    assert traffic.versions == {"1"}
    stack.wait_until_well()


def test_no_request_fails_while_the_replicas_are_stopped_in_good_order(stack: Stack) -> None:
    with traffic_of(stack) as traffic:
        for service in REPLICAS:
            stack.compose("restart", service)
            _wait_until_ready(stack, service)
    assert traffic.failures == []


def test_no_request_fails_while_an_upgrade_replaces_the_replicas(stack: Stack) -> None:
    before = {service: stack.containers()[service]["Id"] for service in REPLICAS}
    text = stack.env_file.read_text()
    changed = re.sub(r"^SERVING_SAMPLE_SHARE=.*$", "SERVING_SAMPLE_SHARE=0.02", text, flags=re.MULTILINE)
    assert changed != text
    stack.env_file.write_text(changed)
    with traffic_of(stack) as traffic:
        stack.make("up")
    assert all(stack.containers()[service]["Id"] != before[service] for service in REPLICAS)
    assert traffic.failures == []


def test_requests_fail_only_for_as_long_as_the_proxy_itself_is_dead(stack: Stack) -> None:
    with traffic_of(stack) as traffic:
        _let_some_be_answered(traffic)
        killed = time.monotonic()
        stack.kill("proxy")
        time.sleep(1)
        assert traffic.failures
        stack.start("proxy")
        until(lambda: _answers(stack), within_s=60)
        back = time.monotonic()
        _let_some_be_answered(traffic)
    print(f"\nthe proxy was gone for {back - killed:.1f} s")
    assert all(killed - 0.5 <= when <= back + 0.5 for when, _ in traffic.failures)


def traffic_of(stack: Stack) -> AbstractContextManager[Traffic]:
    """Returns requests of the model's own example through the proxy, each to be answered alike."""
    url = f"{stack.url('serving')}/v1/models/{MODEL}"
    example = httpx.get(url, headers=stack.shown, timeout=60).json()["example"]
    expected = httpx.post(f"{url}/predict", headers=stack.shown, json=example, timeout=60).json()["predictions"]
    return flowing(f"{url}/predict", stack.shown, example, expected)


def _let_some_be_answered(traffic: Traffic, n_requests: int = 50) -> None:
    wanted = traffic.answered + n_requests
    until(lambda: traffic.answered >= wanted, within_s=120)


def _wait_until_ready(stack: Stack, replica: str) -> None:
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/readyz').status)"
    stack.wait_until_well(replica)
    until(lambda: _python(stack, replica, ask).strip() == "200", within_s=120)


def _answers(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url('serving')}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False


# Afterwards


def test_the_command_line_releases_in_the_stack_after_all_that(stack: Stack) -> None:
    stack.wait_until_well()
    stack.make("run-pipeline", MODEL=MODEL)
    said = stack.make("promote", MODEL=MODEL, REASON="second release")
    assert "version 2 is in Production" in said
    until(lambda: stack.served(MODEL) == "2", within_s=120)
    assert "serving" in stack.make("serve")


def test_each_run_may_have_a_container_of_its_own(stack: Stack) -> None:
    before = stack.env_file.read_text()
    files = f"{stack.settings['COMPOSE_FILE']}:deploy/compose.run-containers.yml"
    group = Path("/var/run/docker.sock").stat().st_gid
    with_launcher = re.sub("^COMPOSE_FILE=.*$", f"COMPOSE_FILE={files}", before, flags=re.MULTILINE)
    stack.env_file.write_text(f"{with_launcher}\nDOCKER_GROUP={group}\n")
    try:
        stack.make("up")
        run_id = stack.launch(f"release_{MODEL}")
    finally:
        stack.env_file.write_text(before)
    tag = f"SELECT value FROM run_tags WHERE key = 'docker/container_id' AND run_id = '{run_id}'"
    assert len(stack.sql("dagster_db", "dagster", tag).strip()) == 64


def test_make_down_leaves_no_container_and_keeps_the_data(stack: Stack) -> None:
    stack.make("down")
    assert stack.compose("ps", "--all", "--quiet") == ""
    volumes = subprocess.check_output(["docker", "volume", "ls", "-q", "-f", f"name={stack.project}_"], text=True)
    assert f"{stack.project}_postgres-data" in volumes
