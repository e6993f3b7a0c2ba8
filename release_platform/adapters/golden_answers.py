"""Lets the registry's model answer its golden rows in a process of its own, which shares nothing with its caller.

The process is this module: `python -P -s -m release_platform.adapters.golden_answers FOLDER MANIFEST PLACE`. It looks
neither into the current folder nor into the user's own packages for modules, computes on one thread, and gets none of
the variables that change what numeric libraries do, nor any secret. It fetches nothing: the folder was fetched and
authorised before. It writes numbers as their bytes, so that they are compared bit by bit.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from release_platform.domain.errors import IntegrityError, ReleaseError, Unavailable
from release_platform.domain.features import FeaturePlan
from release_platform.domain.identity import Manifest
from release_platform.domain.prediction import Predictions
from release_platform.domain.verification import GoldenRun

if TYPE_CHECKING:
    from release_platform.adapters.model_package import ModelPackage

LONGEST_S = 300.0
_KEPT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")
_FIXED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
_ASKED, _SAID, _NUMBERS = "asked.json", "answers.json", "numbers.npy"


def run_golden(folder: Path, manifest: Manifest, columns: Mapping[str, Sequence[Any]] | None = None) -> GoldenRun:
    """Returns what a version says of its golden rows, computed in a clean process.

    Args:
        folder: Its files.
        manifest: What they must be.
        columns: The golden rows of another version that takes the same columns; None for its own.

    Raises:
        IntegrityError: They are not, they may not be loaded, or the process died.
        Unavailable: It took longer than five minutes.
    """
    with TemporaryDirectory() as place:
        listed = Path(place) / "manifest.json"
        listed.write_text(json.dumps(manifest.to_json()), encoding="utf-8")
        if columns is not None:
            (Path(place) / _ASKED).write_text(json.dumps(dict(columns)), encoding="utf-8")
        command = [sys.executable, "-P", "-s", "-m", __name__, str(folder), str(listed), place]
        try:
            done = subprocess.run(
                command, env=_clean(os.environ), capture_output=True, text=True, check=False, timeout=LONGEST_S
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"{folder.name}: the golden rows got no answer within {LONGEST_S:g} s",
                remedy="try again when this machine has less to do",
            ) from None
        return _read(Path(place), done)


def _clean(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: variables[name] for name in _KEPT if name in variables} | _FIXED


def _read(place: Path, done: "subprocess.CompletedProcess[str]") -> GoldenRun:
    if not (place / _SAID).exists():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise IntegrityError(
            f"the process that answers the golden rows ended with code {done.returncode}: {last}",
            remedy="see that the platform is installed whole on this machine",
        )
    said = json.loads((place / _SAID).read_bytes())
    if "problem" in said:
        kind = {known.exit_code: known for known in (IntegrityError, Unavailable)}.get(said["exit_code"], ReleaseError)
        raise kind(said["problem"], remedy=said["remedy"])
    numbers = np.load(place / _NUMBERS, allow_pickle=False)
    classes = tuple(said["classes"])
    labels = np.array(said["labels"], dtype=object)
    return GoldenRun(
        engine=said["engine"],
        inputs=FeaturePlan.from_json(said["plan"]).inputs,
        columns=said["columns"],
        classes=classes,
        answers=Predictions(values=labels, probabilities=numbers) if classes else Predictions(values=numbers),
    )


def _answer(folder: Path, manifest: Manifest, place: Path) -> dict[str, Any]:
    from release_platform.adapters.model_package import load_package

    package = load_package(folder, manifest)
    rows = _rows(package, place)
    found = package.predict(package.inputs_of(rows))
    numbers = found.values if found.probabilities is None else found.probabilities
    np.save(place / _NUMBERS, np.asarray(numbers, dtype=np.float64), allow_pickle=False)
    return {
        "engine": package.engine_name,
        "plan": package.plan.to_json(),
        "columns": {column.name: rows[column.name] for column in package.plan.inputs},
        "classes": package.classes,
        "labels": [] if found.probabilities is None else found.values.tolist(),
    }


def _rows(package: "ModelPackage", place: Path) -> Mapping[str, Sequence[Any]]:
    """Returns the rows that are asked, once the package takes them."""
    asked = place / _ASKED
    if not asked.exists():
        return dict(package.golden["inputs"])
    rows: Mapping[str, Sequence[Any]] = json.loads(asked.read_bytes())
    names = {column.name for column in package.plan.inputs}
    problem = ", ".join(sorted(names ^ set(rows)))
    try:
        if not problem:
            package.inputs_of(rows)
    except (ReleaseError, ValueError, TypeError) as error:
        problem = str(error)
    if problem:
        raise IntegrityError(
            f"{package.model}: the version takes other rows than are asked now: {problem}",
            remedy="whoever asks it in the present form is refused: change that first, or go back by a promotion",
        )
    return rows


def main(folder: str, manifest: str, place: str) -> None:
    """Answers the golden rows and writes the answers, or the failure, into a folder."""
    warnings.simplefilter("ignore")  # libraries' notes to developers
    listed = Manifest.from_json(json.loads(Path(manifest).read_bytes()))
    try:
        said = _answer(Path(folder), listed, Path(place))
    except ReleaseError as error:
        said = {"exit_code": error.exit_code, "problem": error.problem, "remedy": error.remedy}
    (Path(place) / _SAID).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
