"""A canary in the stack, under load: a good version gets all traffic, a bad one loses what it had.

After `test_stack_backup.py`, with a model of a team's own, of whose predictions its clients tell what was right.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack.biopsies import MODEL, clients, write_model
from tests.e2e.stack.stack import Stack, until

WITHIN_S = 1500
MODELS = """
services:
  dagster-code: &models {{volumes: ["{folder}:/srv/models:ro"]}}
  api: *models
  cli: *models
"""


@pytest.fixture(scope="module")
def models(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a team's models, in which there is one with version 1 in Production."""
    root = tmp_path_factory.mktemp("team")
    folder, before = root / "models", stack.env_file.read_text()
    write_model(folder, strength=0.5)
    for path in (root, folder, folder / MODEL):
        path.chmod(0o755)
    (root / "models.yml").write_text(MODELS.format(folder=folder))
    files = f"{stack.settings['COMPOSE_FILE']}:{root / 'models.yml'}"
    changed = re.sub("^COMPOSE_FILE=.*$", f"COMPOSE_FILE={files}", before, flags=re.MULTILINE)
    stack.env_file.write_text(
        re.sub("^SERVING_SAMPLE_SHARE=.*$", "SERVING_SAMPLE_SHARE=1", changed, flags=re.MULTILINE)
    )
    stack.make("up")
    stack.make("run-pipeline", MODEL=MODEL)
    stack.make("promote", MODEL=MODEL, REASON="first release")
    until(lambda: stack.served(MODEL) == "1", within_s=120)
    yield folder
    stack.env_file.write_text(before)


def rollout(stack: Stack) -> dict[str, Any]:
    said = stack.compose("run", "--rm", "--no-deps", "cli", "rollout", "status", MODEL, "--json")
    found: dict[str, Any] = json.loads(said[said.index("{") :])
    return found


def release(stack: Stack, folder: Path, *, strength: float) -> None:
    write_model(folder, strength=strength)
    stack.make("run-pipeline", MODEL=MODEL)
    stack.make("promote", MODEL=MODEL, REASON=f"strength {strength}")


def test_a_good_version_gets_all_traffic_when_the_labels_say_that_it_is_no_worse(stack: Stack, models: Path) -> None:
    with clients(stack.url("serving"), stack.settings["SERVING_KEY"]) as told:
        release(stack, models, strength=0.4)
        assert rollout(stack)["state"] == "running"
        until(lambda: stack.served(MODEL) == "2", within_s=WITHIN_S)
        n_before = told.versions["1"]
    print(f"\n{dict(told.versions)} answered, {told.labels} labels")
    assert told.failures == []
    assert told.versions["2"] > 0
    assert n_before > told.versions["2"] * 0.1
    moves = stack.sql(
        "release_db", "release", f"SELECT move, version FROM ledger WHERE model = '{MODEL}' ORDER BY epoch"
    )
    assert moves.split()[-1] == "promoted|2"


def test_a_bad_version_loses_its_share_when_the_labels_say_so(stack: Stack, models: Path) -> None:
    with clients(stack.url("serving"), stack.settings["SERVING_KEY"]) as told:
        release(stack, models, strength=0.000001)
        until(lambda: rollout(stack)["state"] == "aborted", within_s=WITHIN_S)
    found = rollout(stack)
    print(f"\n{dict(told.versions)} answered, {told.labels} labels: {found['reason']}")
    assert told.failures == []
    assert "label_quality" in found["reason"]
    assert stack.served(MODEL) == "2"
    assert 0 < told.versions["3"] < told.versions["2"]
    with clients(stack.url("serving"), stack.settings["SERVING_KEY"]) as told:
        until(lambda: sum(told.versions.values()) > 100, within_s=120)
    assert set(told.versions) == {"2"}


@pytest.mark.parametrize("kept", ["recordings", "labels"])
def test_requests_are_recorded_with_what_would_have_been_right(stack: Stack, models: Path, kept: str) -> None:
    look = (
        "import boto3; found = boto3.client('s3').list_objects_v2(Bucket='release', "
        f"Prefix='snapshots/{kept}/{MODEL}/'); print(found['KeyCount'])"
    )
    until(lambda: int(stack.compose("exec", "-T", "mlflow", "python", "-c", look)) > 0, within_s=180)
