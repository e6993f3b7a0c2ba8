"""A hostile version behind a certified alias: a real server refuses it, says so, and the last good one goes on."""

from pathlib import Path

import httpx
import pytest

from tests.fakes.packages import build_linear_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until, until_version
from tests.hostile.attacks import ATTACKS
from tests.hostile.workshop import prepare

SAMPLE = (
    "unknown-file/loader-module-and-code",
    "unknown-file/python-model-pickle",
    "plan/deep",
    "plan/text-that-doubles-sixty-times",
    "golden/answers-of-another-model",
    "archive/deflate-bomb",
    "archive/overlapping-entries",
    "skops-schema/constructor-hidden",
    "skops-schema/operator-methodcaller",
    "array/terabytes-declared",
    "tree/circle",
    "tree/boosted-feature-beyond",
    "onnx/endless-loop",
    "onnx/broadcast-to-memory",
)
ROW = {"rows": [{"mean radius": 14.0, "mean texture": 20.0, "mean area": 600.0}]}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory):
    """A server on a good version, the registry behind it, and the number of each hostile version there."""
    root = tmp_path_factory.mktemp("served")
    honest = build_linear_classifier(root / "honest")
    folders = {("cancer", "1"): honest}
    numbers, markers = {}, []
    for number, name in enumerate(SAMPLE, start=2):
        bench = prepare(honest, root, name)
        folders["cancer", str(number)] = ATTACKS[name](bench).folder
        numbers[name] = str(number)
        markers.append(bench.marker)
    registry = FakeRegistry(folders, aliases={("cancer", "production"): "1"})
    with running(settings_for(root / "cache"), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, "cancer", "1")
        yield client, registry, numbers, markers


@pytest.mark.parametrize("name", SAMPLE)
def test_the_last_good_version_goes_on_and_the_refusal_is_shown(stand, name: str) -> None:
    client, registry, numbers, markers = stand
    registry.set_alias("cancer", "production", numbers[name])

    def refusal() -> dict[str, str]:
        return client.get("/status").json()["models"]["cancer"].get("refusal") or {}

    until(lambda: refusal().get("version") == numbers[name])
    assert refusal()["kind"] == "IntegrityError"
    answer = client.post("/v1/models/cancer/predict", json=ROW)
    assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1")
    assert client.get("/readyz").status_code == 200
    assert not any(Path(marker).exists() for marker in markers)


def test_a_good_version_is_taken_again_after_all_of_them(stand) -> None:
    client, registry, _, _ = stand
    registry.set_alias("cancer", "production", "1")
    until(lambda: client.get("/status").json()["models"]["cancer"].get("refusal") is None)
    assert client.post("/v1/models/cancer/predict", json=ROW).status_code == 200
