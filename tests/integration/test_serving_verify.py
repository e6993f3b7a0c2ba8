"""A live server is verified against the registry's own model, and what is wrong with it is found and named."""

import json
import shutil
from dataclasses import replace
from functools import cache
from threading import Lock

import httpx
import pytest
import typer

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.clock import SystemClock
from release_platform.adapters.golden_answers import run_golden
from release_platform.adapters.live_verification import MOST_CONNECTIONS, N_CONNECTIONS, failure_of, verify_live
from release_platform.adapters.model_package import load_package
from release_platform.adapters.serving_client import ServingClient, await_version
from release_platform.adapters.serving_protocols import PROTOCOLS
from release_platform.cli.serving import verify
from release_platform.domain.api_keys import Scope
from release_platform.domain.errors import Unavailable, VerificationFailed
from release_platform.domain.verification import Expected
from tests.fakes.meddler import header, last_bit, meddling, member
from tests.fakes.packages import (
    build_boosted_classifier,
    build_linear_classifier,
    build_regression,
    build_typed_classifier,
    manifest_of,
)
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for

NAMES = [protocol.name for protocol in PROTOCOLS]
NEVER = 3600.0
PREDICT = "/v1/models/cancer/predict"
MODELS = {"cancer": "2", "typed": "1", "diabetes": "1"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    return {
        ("cancer", "1"): build_linear_classifier(root / "1"),
        ("cancer", "2"): build_boosted_classifier(root / "2"),
        ("typed", "1"): build_typed_classifier(root / "3"),
        ("diabetes", "1"): build_regression(root / "4"),
    }


@pytest.fixture(scope="module")
def expected_of(folders):
    """Returns what a server must answer for a version, since an epoch; computed in a clean process, once."""

    @cache
    def run(model, version):
        folder = folders[model, version]
        return run_golden(folder, manifest_of(folder))

    def expected(model, version, epoch):
        digest = manifest_of(folders[model, version]).digest
        return Expected(model=model, version=version, digest=digest, epoch=epoch, golden=run(model, version))

    return expected


@pytest.fixture(scope="module")
def url(folders, tmp_path_factory):
    aliases = {(model, "production"): version for model, version in MODELS.items()}
    with running(settings_for(tmp_path_factory.mktemp("cache")), FakeRegistry(folders, aliases=aliases)) as address:
        with ServingClient(address) as client:
            for model, version in MODELS.items():
                await_version(client, model, version, within_s=10)
        yield address


@pytest.fixture
def cancer(expected_of):
    return expected_of("cancer", "2", 1)


@pytest.fixture(scope="module")
def stale(folders, tmp_path_factory):
    """The address of a server that still has the version before, and will not look again."""
    registry = FakeRegistry(folders, aliases={("cancer", "production"): "1"})
    with running(settings_for(tmp_path_factory.mktemp("stale"), refresh_s=NEVER), registry) as address:
        with ServingClient(address) as client:
            await_version(client, "cancer", "1", within_s=10)
        registry.set_alias("cancer", "production", "2")
        yield address


class OneMoreWorker(httpx.HTTPTransport):
    """The network, over which servers seem to have a worker that nobody meets."""

    name = "feedfeedfeedfeed"

    def handle_request(self, request):
        response = super().handle_request(request)
        if request.url.path != "/status":
            return response
        response.read()
        told = response.json()
        told["server"]["workers"].append(self.name)
        return httpx.Response(200, json=told)


class Between(httpx.HTTPTransport):
    """The network, over which a proxy answers some requests in the server's place."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers  # by path, one for each request that is answered so
        self._lock = Lock()

    def handle_request(self, request):
        with self._lock:
            mine = self.answers.get(request.url.path)
            response = mine.pop() if mine else None
        return response or super().handle_request(request)


def verified(address, expected, api_key=""):
    with ServingClient(address, api_key=api_key) as client:
        return verify_live(client, expected)


def problem(address, expected):
    """Returns the one thing that is wrong with a server."""
    report = verified(address, expected)
    assert not report.passed
    assert report.unavailable is None
    (found,) = report.problems
    return found


# What is right


@pytest.mark.parametrize(("epoch", "model"), list(enumerate(MODELS, 1)))
def test_a_right_server_answers_every_protocol_to_the_last_bit(url, expected_of, epoch, model):
    report = verified(url, expected_of(model, MODELS[model], epoch))
    assert (report.problems, report.unavailable, report.left_out) == ((), None, {})
    assert [one.protocol for one in report.checked] == NAMES
    assert all(one.latency_ms > 0 and one.difference == 0 for one in report.checked)
    assert failure_of([report], model) is None


def test_every_request_goes_over_a_connection_of_its_own(url, cancer):
    def connections():
        text = httpx.get(f"{url}/metrics", headers={"connection": "close"}).text
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("serving_requests_total")
        )

    before = connections()
    verified(url, cancer)
    assert connections() - before >= len(NAMES) - 1 + N_CONNECTIONS


def test_a_worker_that_is_named_and_never_met_fails_the_verification(url, cancer):
    with ServingClient(url, transport=OneMoreWorker()) as client:
        report = verify_live(client, cancer)
    assert not report.passed
    assert report.unavailable is not None
    assert (
        report.unavailable.problem
        == f"{url}: 1 of its workers answered none of {2 * MOST_CONNECTIONS} requests: {OneMoreWorker.name}"
    )


# What is wrong


def test_a_status_that_nobody_can_read_is_wrong_and_the_protocols_are_asked_all_the_same(url, stale, cancer):
    reports = []
    for address in (url, stale):
        with ServingClient(address, transport=Between({"/status": [httpx.Response(404, text="<html>")]})) as client:
            reports.append(verify_live(client, cancer))
    (status,) = reports[0].problems
    assert status == f"{url}, status: status 404, and the answer is no JSON object"
    assert [one.protocol for one in reports[0].checked] == ["status", *NAMES]
    assert any("the answer names version 1, but it should be 2" in problem for problem in reports[1].problems)
    assert isinstance(failure_of(reports, "cancer"), VerificationFailed)


def test_a_wrong_answer_weighs_more_than_one_that_does_not_come_beside_it(stale, cancer):
    busy = {PREDICT: [httpx.Response(503, json={"detail": "overloaded"})]}
    with ServingClient(stale, transport=Between(busy)) as client:
        report = verify_live(client, cancer)
    assert report.unavailable is None
    assert "the answer names version 1, but it should be 2" in report.problems[0]
    assert busy == {PREDICT: []}


def test_a_stale_server_is_found_and_the_right_one_beside_it_is_not_blamed(url, stale, cancer):
    reports = [verified(address, cancer) for address in (url, stale)]
    assert [report.passed for report in reports] == [True, False]
    most, route = reports[1].problems
    others = ", ".join(name for name in NAMES if name != "version route")
    assert most.startswith(f"{stale}, {others}: the answer names version 1, but it should be 2; digest sha256:")
    assert route.startswith(f"{stale}, version route: status 404: ")
    failure = failure_of(reports, "cancer")
    assert isinstance(failure, VerificationFailed)
    assert failure.problem == f"{most}\n{route}"
    assert url not in failure.problem


def test_a_stale_worker_behind_the_port_of_a_right_one_is_found(url, stale, cancer):
    with meddling(url, stale) as address:
        report = verified(address, cancer)
    rows = report.checked[0]
    assert rows.protocol == "rows"
    assert "version 1, but it should be 2" in rows.problem
    assert rows.problem.endswith(f"(over {N_CONNECTIONS // 2} of {N_CONNECTIONS} connections)")


def test_another_epoch_is_found_though_version_and_digest_are_right(url, cancer):
    assert problem(url, replace(cancer, epoch=5)) == (
        f"{url}, every protocol: the answer names epoch 1, but it should be 5"
    )


def test_other_bytes_under_the_same_number_are_found(url, expected_of, cancer):
    other = replace(cancer, digest=expected_of("cancer", "1", 1).digest)
    assert problem(url, other) == (
        f"{url}, every protocol: the answer names digest {cancer.digest}, but it should be {other.digest}"
    )


@pytest.fixture(scope="module")
def swapped(folders, tmp_path_factory):
    """The address of a server whose package has the same fitted model behind another preprocessing; and its digest."""
    folder = shutil.copytree(folders["cancer", "2"], tmp_path_factory.mktemp("swapped") / "2")
    release = (folder / "release.json").read_text()
    assert '"divide"' in release
    (folder / "release.json").write_text(release.replace('"divide"', '"multiply"'))
    package = load_package(folder, manifest_of(folder))
    golden = {"inputs": package.golden["inputs"], "answers": package.predict(package.golden_inputs).to_json()}
    (folder / "golden.json").write_text(json.dumps(golden))
    lying = FakeRegistry({("cancer", "2"): folder}, aliases={("cancer", "production"): "2"})
    with running(settings_for(tmp_path_factory.mktemp("lied to")), lying) as address:
        with ServingClient(address) as client:
            await_version(client, "cancer", "2", within_s=10)
        yield address, manifest_of(folder).digest


def test_a_changed_preprocessing_step_is_found_by_its_digest(swapped, cancer):
    address, digest = swapped
    assert f"names digest {digest}, but it should be {cancer.digest}" in problem(address, cancer)


def test_a_changed_preprocessing_step_is_found_by_its_numbers_though_the_server_names_the_right_digest(swapped, cancer):
    address, digest = swapped
    found = problem(address, replace(cancer, digest=digest))
    assert found.startswith(f"{address}, every protocol: row 3, 'malignant': ")
    assert "; the largest difference of a number is 0." in found


@pytest.mark.parametrize("place", range(len(PROTOCOLS)), ids=NAMES)
def test_one_bit_in_one_protocol_is_found_and_nothing_else_is_blamed(url, cancer, place):
    protocol = PROTOCOLS[place]
    with meddling(url, change=last_bit, only=protocol.ask(cancer)) as address:
        report = verified(address, cancer)
    (found,) = report.problems
    right = float(cancer.golden.answers.probabilities[-1, -1])
    assert found.startswith(f"{address}, {protocol.name}: row 4, 'benign': 0.")
    assert f" instead of {right!r}; the largest difference of a number is " in found
    assert [one.protocol for one in report.checked if one.problem] == [protocol.name]
    assert 0 < report.difference < 1e-15


@pytest.mark.parametrize("place", range(len(PROTOCOLS)), ids=NAMES)
def test_one_bit_in_the_value_of_a_regression_is_found(url, expected_of, place):
    expected, protocol = expected_of("diabetes", "1", 3), PROTOCOLS[place]
    with meddling(url, change=last_bit, only=protocol.ask(expected)) as address:
        found = problem(address, expected)
    assert found.startswith(f"{address}, {protocol.name}: row 4: ")


@pytest.mark.parametrize(("name", "wrong"), [("version", "1"), ("digest", "sha256:0"), ("epoch", "9"), ("epoch", None)])
def test_a_header_that_names_something_else_is_found(url, cancer, name, wrong):
    with meddling(url, change=header(f"x-model-{name}", wrong), only=PROTOCOLS[-1].ask(cancer)) as address:
        found = problem(address, cancer)
    where = f"{address}, v2 binary: the answer names {name} {wrong or 'nothing'} in its headers, but it should be "
    assert found == where + cancer.names[name]


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("model", "typed", "names model typed, but it should be cancer"),
        ("version", "1", "names version 1 in its body, but it should be 2"),
        ("engine", "onnx", "names engine onnx, but it should be skops"),
        ("predictions", ["benign"] * 5, "row 0 (and 3 more of 5): label 'benign' instead of 'malignant'"),
        ("predictions", [], "0 labels for 5 rows"),
        ("classes", ["benign", "malignant"], "the classes are benign, malignant in this order"),
        ("probabilities", [[1.0, 0.0]], "answers of shape (1, 2) instead of (5, 2)"),
        ("probabilities", "many", "cannot be read"),
    ],
)
def test_a_body_that_says_something_else_is_found(url, cancer, name, wrong, said):
    with meddling(url, change=member(name, wrong), only=PROTOCOLS[1].ask(cancer)) as address:
        found = problem(address, cancer)
    assert found.startswith(f"{address}, columns: ")
    assert said in found


# Who does not answer


def test_a_model_that_is_not_there_is_named(url, cancer):
    found = problem(url, replace(cancer, model="nobody"))
    assert "status 404" in found
    assert "no model 'nobody'" in found


def test_a_server_that_is_not_there_is_asked_no_further(cancer):
    report = verified("http://127.0.0.1:9", cancer)
    assert (report.passed, report.checked, report.problems) == (False, (), ())
    assert isinstance(failure_of([report], "cancer"), Unavailable)
    assert "cannot be reached" in report.unavailable.problem


def test_a_wrong_answer_weighs_more_than_none(url, cancer):
    reports = [verified("http://127.0.0.1:9", cancer), verified(url, replace(cancer, epoch=5))]
    failure = failure_of(reports, "cancer")
    assert isinstance(failure, VerificationFailed)
    assert "cannot be reached" in failure.problem


@pytest.fixture(scope="module")
def keyed(folders, tmp_path_factory):
    """The address of a server that asks for API keys; one that may predict and read; one that may read only."""
    root = tmp_path_factory.mktemp("keyed")
    file = ApiKeyFile(root / "api-keys.json", SystemClock())
    keys = [file.create(name, scopes=scopes)[1] for name, scopes in _SCOPES.items()]
    registry = FakeRegistry(folders, aliases={("cancer", "production"): "2"})
    with running(settings_for(root / "cache", api_keys=root / "api-keys.json"), registry) as address:
        with ServingClient(address, api_key=keys[0]) as client:
            await_version(client, "cancer", "2", within_s=10)
        yield address, *keys


_SCOPES = {"both": (Scope.PREDICT, Scope.READ), "reader": (Scope.READ,)}


def test_a_server_that_asks_for_api_keys_is_verified_with_one(keyed, cancer):
    address, key, _ = keyed
    assert verified(address, cancer, key).passed


@pytest.mark.parametrize("which", ["none", "another", "one of another scope"])
def test_without_the_right_api_key_it_is_told_what_to_do_and_no_key_is_shown(keyed, cancer, which):
    address, key, reader = keyed
    given = {"none": "", "another": key[:-1] + ("a" if key[-1] != "a" else "b"), "one of another scope": reader}[which]
    report = verified(address, cancer, given)
    assert (report.passed, report.checked) == (False, ())
    assert "API key" in report.unavailable.problem
    assert "RELEASE_SERVING_API_KEY" in report.unavailable.remedy
    assert not given or given not in str(report)


@pytest.mark.parametrize("given", ["two words", "line\nend", "schlüssel"])
def test_what_cannot_be_an_api_key_is_refused_without_showing_it(url, given):
    with pytest.raises(Unavailable) as caught:
        ServingClient(url, api_key=given)
    assert given not in str(caught.value)


def test_it_works_beside_a_proxy_of_the_environment(url, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ServingClient(url) as client:
        assert client.ready()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/livez", trust_env=True)


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_address_is_refused_and_no_other_server_verified_in_its_place(empty):
    with pytest.raises(typer.BadParameter, match="it is empty"):
        verify("cancer", url=["http://127.0.0.1:1", empty])
