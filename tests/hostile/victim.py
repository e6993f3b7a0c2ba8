"""Loads artefacts as serving would, in a process that may come to harm; writes one line of JSON for each."""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from release_platform.adapters.mlflow_registry import _record
from release_platform.adapters.model_package import load_package
from release_platform.adapters.version_tags import DIGEST_TAG, MANIFEST_TAG
from release_platform.domain.errors import IntegrityError
from serving.golden import check_golden


def load(folder: Path, manifest: str, digest: str) -> None:
    """Reads the record of a version from its tags, loads its files, asks its golden rows."""
    tags = [ModelVersionTag(DIGEST_TAG, digest), ModelVersionTag(MANIFEST_TAG, manifest)]
    record = _record(ModelVersion(name="cancer", version="1", creation_timestamp=0, tags=tags))
    check_golden(load_package(folder, record.manifest))


def _peak_bytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def attempt(artefact: dict[str, Any]) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured anew from here
    started = time.process_time()
    try:
        load(Path(artefact["folder"]), artefact["manifest"], artefact["digest"])
        outcome, reason = "loaded", ""
    except IntegrityError as error:
        outcome, reason = "refused", error.problem
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is no refusal, and the test says so
        outcome, reason = type(error).__name__, str(error)
    return {
        "outcome": outcome,
        "reason": reason[:500],
        "seconds": time.process_time() - started,
        "peak_bytes": _peak_bytes(),
        "payload_ran": Path(artefact["marker"]).exists(),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name, artefact in json.loads(Path(sys.argv[1]).read_text()).items():
        with Path(sys.argv[2]).open("a") as file:
            file.write(json.dumps({"name": name, **attempt(artefact)}) + "\n")
