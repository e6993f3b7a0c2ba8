"""Whatever is sent, each request gets one sound answer, the right one, and the same with and without the fast path."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from release_platform.adapters.model_package import ModelPackage, load_package
from tests.fakes.packages import (
    build_boosted_classifier,
    build_linear_classifier,
    build_regression,
    build_typed_classifier,
    manifest_of,
)
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until
from tests.fuzz.cases import VERSION, Case, case_of
from tests.fuzz.oracle import Oracle
from tests.fuzz.reference import MAX_ROWS
from tests.fuzz.seeds import BODIES, SEED
from tests.fuzz.wire import Wire

_SHOWN = 2000


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("packages")
    return {
        "linear": build_linear_classifier(root / "linear", model="linear"),
        "boosted": build_boosted_classifier(root / "boosted", model="boosted"),
        "diabetes": build_regression(root / "diabetes"),
        "overflows": build_regression(root / "overflows", model="overflows", overflows=True),
        "typed": build_typed_classifier(root / "typed"),
    }


@pytest.fixture(scope="module")
def packages(folders: Mapping[str, Path]) -> Mapping[str, ModelPackage]:
    return {model: load_package(folder, manifest_of(folder)) for model, folder in folders.items()}


@pytest.fixture(scope="module")
def urls(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The addresses of a server with the fast path, and of one without."""
    root = tmp_path_factory.mktemp("servers")
    versions = {(model, VERSION): folder for model, folder in folders.items()}
    registry = FakeRegistry(versions, aliases={(model, "production"): VERSION for model in folders})
    with ExitStack() as servers:
        found = []
        for fast in (True, False):
            settings = settings_for(root / f"cache-{fast}", fast_path=fast, max_rows=MAX_ROWS, body_timeout_s=0.5)
            url = servers.enter_context(running(settings, registry))
            found.append(url)
        until(lambda: all(len(httpx.get(url + "/v1/models").json()["models"]) == len(folders) for url in found))
        yield found


@pytest.mark.timeout(7200)
def test_every_request_is_answered_as_the_reference_reads_it(
    packages: Mapping[str, ModelPackage], urls: list[str]
) -> None:
    models = {model: package.plan.inputs for model, package in packages.items()}
    templates = [path for path, item in httpx.get(urls[0] + "/openapi.json").json()["paths"].items() if "post" in item]
    oracle = Oracle(packages)
    with ExitStack() as stack:
        wires = [stack.enter_context(closing(Wire(url))) for url in urls]
        for number in range(BODIES):
            case = case_of(SEED, number, models, templates)
            try:
                fast, slow = (wire.ask(case.text) if case.sound else wire.ask_once(case.text) for wire in wires)
                oracle.judge(case, fast, slow)
            except Exception as error:
                raise AssertionError(f"case {number} of seed {SEED}: {_told(case)}") from error
    print(
        f"\n{BODIES:,} requests, seed {SEED}:",
        *(f"{key[0]} {key[1]}: {n:,};" for key, n in sorted(oracle.seen.items())),
    )
    assert all(oracle.seen[protocol, status] for protocol, _ in oracle.seen for status in (200, 400, 415, 422))


def _told(case: Case) -> str:
    shown = case.text if len(case.text) <= _SHOWN else case.text[:_SHOWN] + b"..."
    return f"{case.protocol}, {case.blame}, {shown!r}"
