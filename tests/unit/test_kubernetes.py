"""The files for Kubernetes: strictly by its schemas, and in step with the images, the compose file and the server."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from release_platform.api.drills import LONGEST_S
from release_platform.settings import Settings
from serving.server import PATIENCE_S
from serving.settings import Settings as ServingSettings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
VALUES = yaml.safe_load((FOLDER / "dagster-values.yaml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
MANIFESTS: list[dict[str, Any]] = [
    one for file in KUSTOMIZATION["resources"] for one in yaml.safe_load_all((FOLDER / file).read_text())
]
VERSIONS = ("1.30.0", kubernetes_validate.latest_version())
TARGETS = set(re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
USER = 10001
SECRETS = {
    "release-database",
    "release-database-owner",
    "mlflow-database",
    "dagster-postgresql",
    "object-store",
    "signing-key",
    "stamp-secret",
    "trusted-keys",
    "api-keys",
    "serving-keys",
    "notify",
}


def named(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def find(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in MANIFESTS if named(one) == f"{kind}/{name}"]
    return found


PODS = {named(one): one["spec"]["template"] for one in MANIFESTS if one["kind"] in {"Deployment", "Job"}}
CONTAINERS = {
    f"{pod}/{container['name']}": container
    for pod, template in PODS.items()
    for container in template["spec"]["containers"]
}
SERVING = PODS["Deployment/serving"]["spec"]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("env", ())}


# The schemas


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=named)
def test_a_manifest_is_what_kubernetes_takes_and_nothing_else(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    wrong = yaml.safe_load(yaml.safe_dump(find("Deployment", "serving")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_file_is_in_the_kustomization() -> None:
    known = {"kustomization.yaml", "dagster-values.yaml", *KUSTOMIZATION["resources"]}
    assert {file.name for file in FOLDER.glob("*.yaml")} == known
    for one in KUSTOMIZATION["configMapGenerator"]:
        assert all((FOLDER / file).is_file() for file in one["files"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed here")
def test_kubectl_renders_it() -> None:
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True)
    assert len(list(yaml.safe_load_all(done.stdout))) == len(MANIFESTS) + 1


def test_no_two_things_have_one_name() -> None:
    names = [named(one) for one in MANIFESTS]
    assert len(names) == len(set(names))


# Harmless and bounded


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_nobody_and_has_no_token_of_the_cluster(name: str) -> None:
    pod = PODS[name]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == USER
    assert f"USER {USER}:{USER}" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_can_become_nothing_writes_nothing_and_is_bounded(name: str) -> None:
    container = CONTAINERS[name]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]["limits"]) == set(container["resources"]["requests"]) == {"cpu", "memory"}


def test_secrets_are_named_and_never_written() -> None:
    text = "\n".join(file.read_text() for file in FOLDER.glob("*.yaml"))
    used = set(re.findall(r"secret(?:Ref)?: \{(?:secretName|name): ([a-z-]+)", text))
    used |= {one["name"] for section in _values_with("envSecrets") for one in section}
    used.add(VALUES["global"]["postgresqlSecretName"])
    assert used == SECRETS
    assert "kind: Secret" not in text
    for word in (
        "PASSWORD",
        "SECRET_KEY",
        "STAMP_SECRET",
        "NOTIFY_URL",
        "NOTIFY_SECRET",
        "SERVING_API_KEY",
        "SERVING_ADMIN_KEY",
        "SIGNING_KEY",
        "STORE_URL",
        "BACKEND_STORE_URI",
    ):
        assert not re.search(rf"{word}: \S|{word}, value", text), word


def test_the_page_on_operating_says_how_each_secret_is_made() -> None:
    page = (ROOT / "docs" / "operate.md").read_text()
    assert set(re.findall(r"create secret generic ([a-z-]+)", page)) == SECRETS


def _values_with(key: str) -> Iterator[Any]:
    def walk(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name == key:
                    yield inner
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    return walk(VALUES)


# In step with images, compose file and server


@pytest.mark.parametrize("name", CONTAINERS)
def test_an_image_is_one_that_the_dockerfile_makes(name: str) -> None:
    repository, _, tag = CONTAINERS[name]["image"].partition(":")
    assert tag == "local"
    assert repository.removeprefix("model-release-platform/") in TARGETS
    assert repository in {one["name"] for one in KUSTOMIZATION["images"]}
    assert re.sub(r"\$\{STACK_IMAGES:-([^}]*)\}", r"\1", COMPOSE["serving-1"]["image"]).startswith(
        "model-release-platform/serving:"
    )


@pytest.mark.parametrize(
    ("container", "service"),
    [
        ("Deployment/mlflow/mlflow", "mlflow"),
        ("Deployment/serving/serving", "serving-1"),
        ("Deployment/api/api", "api"),
        ("Job/migrate-release/migrate", "migrate-release"),
    ],
)
def test_a_container_runs_what_the_compose_file_runs(container: str, service: str) -> None:
    assert CONTAINERS[container]["command"] == COMPOSE[service]["command"]


@pytest.mark.parametrize("container", ["Deployment/mlflow/mlflow", "Deployment/serving/serving"])
def test_its_variables_are_those_of_the_compose_file(container: str) -> None:
    service = {"mlflow": "mlflow", "serving": "serving-1"}[container.split("/")[1]]
    own = {"SERVING_SHUTDOWN_S", "OMP_NUM_THREADS"}
    assert set(environment(CONTAINERS[container])) - own <= set(COMPOSE[service]["environment"])


def test_the_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment(CONTAINERS["Deployment/serving/serving"]):
        assert name == "OMP_NUM_THREADS" or name.removeprefix("SERVING_").lower() in ServingSettings.model_fields
    given = find("ConfigMap", "release-settings")["data"]
    for name in given:
        if name.startswith("RELEASE_"):
            assert name.removeprefix("RELEASE_").lower() in Settings.model_fields
    # With what the secrets add, whoever releases has all that the profile asks for.
    more = {"RELEASE_STORE_URL": "postgresql+psycopg2://x@y/z", "RELEASE_STAMP_SECRET": "s" * 40, "DAGSTER_HOME": "/d"}
    for name, value in (given | more).items():
        monkeypatch.setenv(name, value)
    Settings().check()


def test_addresses_in_the_settings_are_those_of_services() -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == "Service"}
    settings = find("ConfigMap", "release-settings")["data"]
    addresses = [settings["RELEASE_MLFLOW_TRACKING_URI"], settings["RELEASE_SERVING_URL"]]
    addresses.append(environment(CONTAINERS["Deployment/serving/serving"])["SERVING_TRACKING_URI"])
    for address in addresses:
        host, _, port = address.removeprefix("dns+").removeprefix("http://").partition(":")
        assert int(port) in {one["port"] for one in services[host]["ports"]}
    for name, spec in services.items():
        owner = spec["selector"]["app.kubernetes.io/name"]
        ports = {p["name"] for c in PODS[f"Deployment/{owner}"]["spec"]["containers"] for p in c.get("ports", ())}
        assert {one["targetPort"] for one in spec["ports"]} <= ports, name


def test_who_releases_sees_every_pod_of_serving() -> None:
    pods, clients = find("Service", "serving-pods")["spec"], find("Service", "serving")["spec"]
    assert pods["clusterIP"] == "None"
    assert "clusterIP" not in clients
    assert pods["selector"] == clients["selector"]
    assert find("ConfigMap", "release-settings")["data"]["RELEASE_SERVING_URL"] == "dns+http://serving-pods:8000"


def test_ports_and_probes_are_those_that_the_health_checks_of_the_stack_ask() -> None:
    for container, service in (("mlflow/mlflow", "mlflow"), ("serving/serving", "serving-1"), ("api/api", "api")):
        asked = COMPOSE[service]["healthcheck"]["test"][-1]
        port, path = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/.*)", asked).groups()  # type: ignore[union-attr]
        one = CONTAINERS[f"Deployment/{container}"]
        assert [p["containerPort"] for p in one["ports"]] == [int(port)]
        assert one["livenessProbe"]["httpGet"] == {"path": path, "port": "http"}


def test_the_probes_of_serving_are_routes_that_it_has() -> None:
    (container,) = SERVING["containers"]
    text = (ROOT / "serving" / "routes" / "health.py").read_text()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert f'"{container[probe]["httpGet"]["path"]}"' in text
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_a_pod_of_serving_has_time_to_end_in_good_order() -> None:
    (container,) = SERVING["containers"]
    given = environment(container)
    slept = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = slept + float(given["SERVING_DRAIN_S"]) + float(given["SERVING_SHUTDOWN_S"]) + PATIENCE_S
    assert needed < SERVING["terminationGracePeriodSeconds"]
    probe = container["readinessProbe"]
    assert float(given["SERVING_DRAIN_S"]) > probe["periodSeconds"] * probe["failureThreshold"]  # it is seen to say no


def test_the_operators_api_has_time_to_end_its_drills() -> None:
    given_s = PODS["Deployment/api"]["spec"]["terminationGracePeriodSeconds"]
    assert given_s >= LONGEST_S + 15  # the moves wait for the registry and the release store
    assert COMPOSE["api"]["stop_grace_period"] == f"{given_s}s"


def test_the_autoscaler_and_the_budget_are_about_serving_and_leave_one_that_answers() -> None:
    scaler, budget = find("HorizontalPodAutoscaler", "serving")["spec"], find("PodDisruptionBudget", "serving")["spec"]
    assert scaler["scaleTargetRef"]["name"] == "serving"
    assert "replicas" not in find("Deployment", "serving")["spec"]
    assert scaler["minReplicas"] - budget["maxUnavailable"] >= 1
    assert budget["selector"]["matchLabels"].items() <= PODS["Deployment/serving"]["metadata"]["labels"].items()


def test_serving_reaches_reads_of_the_registry_only() -> None:
    (to_mlflow, to_names) = find("NetworkPolicy", "serving")["spec"]["egress"]
    assert [port["port"] for port in to_mlflow["ports"]] == [5051]
    assert {port["port"] for port in to_names["ports"]} == {53}
    writers, readers = find("NetworkPolicy", "mlflow")["spec"]["ingress"]
    assert readers["from"][0]["podSelector"]["matchLabels"] == {"release/registry": "reads"}
    assert [port["port"] for port in readers["ports"]] == [5051]
    label = writers["from"][0]["podSelector"]["matchLabels"]
    assert label == VALUES["runLauncher"]["config"]["k8sRunLauncher"]["labels"]
    assert label.items() <= PODS["Deployment/api"]["metadata"]["labels"].items()
    assert not any("secretRef" in str(one) for one in SERVING["containers"])


@contextmanager
def reader_before(backend: int) -> Iterator[str]:
    """Runs the container beside MLflow, with its own configuration, before a server on a port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {"BIND_REGISTRY": f"127.0.0.1:{port}", "MLFLOW": f"127.0.0.1:{backend}"}
    given["PROXY_FILES"] = str(ROOT / "deploy" / "proxy")
    command = [str(shutil.which("haproxy") or "/usr/sbin/haproxy"), "-db", "-f", str(FOLDER / "registry-reader.cfg")]
    process = subprocess.Popen(command, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.skipif(
    shutil.which("haproxy") is None and not Path("/usr/sbin/haproxy").exists(), reason="haproxy is not installed here"
)
def test_what_serving_reads_passes_and_a_write_does_not() -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write((self.headers["host"] or "").encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with reader_before(server.server_port) as url:
            read = httpx.get(
                f"{url}/api/2.0/mlflow/registered-models/alias", params={"name": "m", "alias": "production"}
            )
            assert (read.status_code, read.text) == (200, "mlflow:5050")
            assert httpx.post(f"{url}/api/2.0/mlflow/registered-models/alias", json={}).status_code == 403
            assert httpx.get(f"{url}/api/2.0/mlflow/something-new").status_code == 403
        server.shutdown()


def test_who_sends_messages_gets_receivers_and_their_secret_from_a_secret_as_in_the_stack() -> None:
    page = (ROOT / "docs" / "operate.md").read_text()
    (made,) = re.findall(r"create secret generic notify +(.*)", page)
    names = set(re.findall(r"--from-literal=(\w+)=", made))
    assert names == {name for name in COMPOSE["dagster-code"]["environment"] if name.startswith("RELEASE_NOTIFY")}
    (location,) = VALUES["dagster-user-deployments"]["deployments"]
    assert {"name": "notify"} in location["envSecrets"]
    assert "notify" not in str([VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], CONTAINERS, SERVING])


# Dagster's chart


def test_dagster_runs_our_image_with_the_settings_and_secrets_of_who_releases() -> None:
    (location,) = VALUES["dagster-user-deployments"]["deployments"]
    for part in (location, VALUES["dagsterWebserver"], VALUES["dagsterDaemon"]):
        assert part["image"]["repository"] == "model-release-platform/platform"
        assert part["podSecurityContext"]["runAsUser"] == USER
    api = CONTAINERS["Deployment/api/api"]
    assert {one["name"] for one in location["envSecrets"]} == {
        one["secretRef"]["name"] for one in api["envFrom"] if "secretRef" in one
    } | {"notify"}
    assert location["volumeMounts"] == [one for one in api["volumeMounts"] if one["name"] != "tmp"]
    assert location["includeConfigInLaunchedRuns"] == {"enabled": True}
    command = COMPOSE["dagster-code"]["command"]
    assert location["codeServerArgs"] == command[command.index("-m") :]
    assert location["port"] == 4000


def test_dagster_is_on_postgresql_with_the_driver_that_is_installed_and_keeps_one_run_of_a_model() -> None:
    assert VALUES["postgresql"]["enabled"] is False
    assert VALUES["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
    instance = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    coordinator = VALUES["dagsterDaemon"]["runCoordinator"]["config"]["customRunCoordinator"]
    assert {name: coordinator[name] for name in ("module", "class")} == {
        name: instance["run_coordinator"][name] for name in ("module", "class")
    }
    limits = VALUES["additionalInstanceConfig"]["concurrency"]["runs"]["tag_concurrency_limits"]
    for one in limits:
        assert one in instance["concurrency"]["runs"]["tag_concurrency_limits"]
    assert [one["key"] for one in limits] == ["release/model"]


@pytest.mark.parametrize(
    ("part", "known"),
    [
        (
            "runLauncher.config.k8sRunLauncher",
            "envConfigMaps envSecrets envVars failPodOnRunFailure image imagePullPolicy"
            " jobNamespace kubeconfigFile labels loadInclusterConfig volumeMounts volumes",
        ),
        (
            "postgresql",
            "enabled image postgresqlDatabase postgresqlHost postgresqlParams postgresqlPassword"
            " postgresqlScheme postgresqlUsername service",
        ),
        (
            "dagsterWebserver",
            "annotations affinity dbPoolRecycle dbStatementTimeout deploymentLabels enableReadOnly env"
            " envConfigMaps envSecrets image labels livenessProbe logLevel nameOverride nodeSelector pathPrefix"
            " podSecurityContext readinessProbe replicaCount resources schedulerName securityContext service"
            " startupProbe tolerations volumeMounts volumes workspace",
        ),
        (
            "dagsterDaemon",
            "affinity annotations deploymentLabels enabled env envConfigMaps envSecrets heartbeatTolerance"
            " image labels livenessProbe nodeSelector podSecurityContext readinessProbe resources runCoordinator"
            " runMonitoring runRetries schedulerName schedules securityContext sensors startupProbe tolerations"
            " volumeMounts volumes",
        ),
        ("dagster-user-deployments", "deployments enableSubchart enabled imagePullSecrets"),
    ],
)
def test_values_have_only_keys_that_the_chart_knows(part: str, known: str) -> None:
    section = VALUES
    for name in part.split("."):
        section = section[name]
    assert set(section) <= set(known.split())
