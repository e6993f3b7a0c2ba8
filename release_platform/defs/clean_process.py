"""Trains a version again in a process of its own, which is told to compute as it was recorded.

The process is this module: `python -P -s -m release_platform.defs.clean_process MODEL VERSION FOLDER ANSWER`. It looks
neither into the current folder nor into the user's own packages for modules, and gets none of the variables that change
what numeric libraries do, but the recorded ones (see `pipeline/native.py`). It writes its answer into a file.
"""

import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from release_platform.domain.errors import DataError, IntegrityError, ReleaseError, Unavailable
from release_platform.pipeline.native import core_type, pinned
from release_platform.pipeline.recorded_data import read_recorded
from release_platform.pipeline.reproduction import Recorded, Reproduction, reproduce
from release_platform.services import Services
from release_platform.settings import Settings

_ERRORS = {kind.exit_code: kind for kind in (DataError, Unavailable, IntegrityError)}


def train_again(
    model: str, version: str, place: Path, *, environment: Mapping[str, str], variables: Mapping[str, str]
) -> Reproduction:
    """Returns what came of training a version again in a process of its own.

    Args:
        model: The model.
        version: Its version.
        place: The folder of its project.
        environment: The recorded surroundings of the training run.
        variables: The environment variables of this process; see `pinned` for what the other one gets of them.

    Raises:
        IntegrityError: What was recorded is gone or was changed, or the process died.
        DataError: The data cannot be used by the code of today.
        Unavailable: An outside system does not answer.
    """
    with TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        arguments = ["-P", "-s", "-m", __name__, model, version, str(place), str(answer)]
        done = subprocess.run(
            [sys.executable, *arguments],
            env=pinned(environment, variables),
            capture_output=True,
            text=True,
            check=False,
        )
        if not answer.exists():
            raise IntegrityError(
                f"{model} version {version}: {_death(done.returncode, done.stderr, core_type(environment))}",
                remedy="reproduce it on a machine of the recorded kind; `release lineage` shows what was recorded",
            )
        return _read(json.loads(answer.read_bytes()))


def _death(code: int, said: str, core: str | None) -> str:
    if code == -signal.SIGILL:
        return f"this machine cannot run the recorded BLAS core type {core}: illegal instruction"
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    return f"the process that trained again ended with code {code}: {last}"


def _read(answer: Mapping[str, Any]) -> Reproduction:
    if "problem" not in answer:
        return Reproduction.from_json(answer)
    raise _ERRORS.get(answer["exit_code"], ReleaseError)(answer["problem"], remedy=answer["remedy"])


def reproduce_here(services: Services, model: str, version: str, place: Path) -> Reproduction:
    """Returns what came of training a version again in this process, as it is.

    Raises:
        NotFound: There is no such version.
        IntegrityError: What was recorded is gone or was changed.
    """
    registration = services.store.get_registration(model, version)
    run_id = registration.mlflow_run_id
    raw = read_recorded(services.snapshots, services.tracking.snapshots_of(run_id), registration.fingerprint)
    with TemporaryDirectory() as folder:
        record = services.releases.fetch_registered(registration, Path(folder))
        return reproduce(
            Path(folder),
            record.manifest,
            raw,
            recorded=Recorded(
                model_digest=registration.model_digest,
                environment=services.tracking.environment_of(run_id),
                code=services.tracking.code_of(run_id),
            ),
            place=place,
        )


def main(model: str, version: str, place: str, answer: str) -> None:
    """Trains again and writes the answer, or the failure, into a file."""
    warnings.simplefilter("ignore")  # libraries' notes to developers
    try:
        found = reproduce_here(Services(Settings()), model, version, Path(place)).to_json()
    except ReleaseError as error:
        found = {"exit_code": error.exit_code, "problem": error.problem, "remedy": error.remedy}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
