"""Trains a model in a process of its own: `python -P -s -m release_platform.pipeline.trial_process ORDER ANSWER`.

The order names the model, its data, and whose code the source is read with; the answer says where the package is and
what it was made from, or why there is none. Both are JSON files.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.errors import (
    DataError,
    IntegrityError,
    Refused,
    ReleaseError,
    SpecError,
    TrainingError,
    Unavailable,
)
from release_platform.domain.records import RawData, TrainedModel
from release_platform.pipeline.trial import read_data, train
from release_platform.project import Project, parse_spec

_ERRORS = {kind.exit_code: kind for kind in (SpecError, DataError, Refused, Unavailable, IntegrityError)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOrder:
    """What is to be trained.

    Attributes:
        attributes: The model's spec, as a JSON value.
        place: The folder of its project, in whichever checkout.
        data: The folder that the source's paths are relative to.
        store: Where the snapshots go.
        package: Where the package goes; must not exist.
        partitions: The months to take; None: all.
        paths: Where Python looks for the team's modules, before anywhere else.
        packages: Packages whose modules are taken from another folder, by name.
        code: The root of the checkout that the team's modules are of; empty for a source that is no Python.
        foreign: Files and folders that no module may be read from, since they are of another commit.
        kept: Folders whose modules may be read though they are in one of those, and are of no commit.
    """

    attributes: dict[str, Any]
    place: str
    data: str
    store: str
    package: str
    partitions: tuple[str, ...] | None = None
    paths: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    foreign: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialAnswer:
    """What was trained, the raw data that it was made from, and the team's modules that were read, in the checkout."""

    trained: TrainedModel
    raw: RawData
    modules: tuple[str, ...] = ()


_ORDER = TypeAdapter(TrialOrder)
_ANSWER = TypeAdapter(TrialAnswer)


def ordered(order: TrialOrder, variables: Mapping[str, str]) -> TrialAnswer:
    """Returns what came of an order, carried out in a process of its own.

    Args:
        order: What is to be trained.
        variables: The environment variables of that process.

    Raises:
        DataError: The data cannot be used.
        TrainingError: The model cannot be trained.
        IntegrityError: The process died.
    """
    with TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "order.json", Path(folder) / "answer.json"
        asked.write_bytes(_ORDER.dump_json(order))
        command = [sys.executable, "-P", "-s", "-m", __name__, str(asked), str(answer)]
        done = subprocess.run(command, env=dict(variables), capture_output=True, text=True, check=False)
        if not answer.exists():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise TrainingError(
                f"{order.attributes['name']}: the process that trains ended with code {done.returncode}: {last}",
                remedy="run `release run` on this commit to see the same",
            )
        said = json.loads(answer.read_bytes())
    if "problem" in said:
        raise _ERRORS.get(said["exit_code"], ReleaseError)(said["problem"], remedy=said["remedy"])
    return _ANSWER.validate_python(said)


def carry_out(order: TrialOrder) -> TrialAnswer:
    """Returns what came of an order, carried out in this process; modules may be taken from elsewhere for good.

    Raises:
        Refused: A module was read that is of another commit.
        ReleaseError: See `ordered`.
    """
    others = [path for path in sys.path if path not in order.paths and not _is_foreign(path, order)]
    sys.path[:] = [*order.paths, *others]
    for name, folder in order.packages.items():
        _take_package(name, Path(folder))
    project = Project(spec=parse_spec(order.attributes, file=Path(order.place) / "defs.yaml"), folder=Path(order.place))
    data = read_data(project.spec, Path(order.data), SnapshotStore(order.store), order.partitions)
    trial = train(project.spec, project.folder, data.features, data.table, Path(order.package))
    return TrialAnswer(trained=trial.trained, raw=data.raw, modules=_modules(order))


def _take_package(name: str, folder: Path) -> None:
    """Imports a package within another one from a folder, wherever that one is."""
    found = PathFinder.find_spec(name, [str(folder.parent)])
    assert found is not None
    assert found.loader is not None
    sys.modules[name] = module_from_spec(found)
    found.loader.exec_module(sys.modules[name])


def _modules(order: TrialOrder) -> tuple[str, ...]:
    """Returns the files of the team's modules that were read, relative to the root of their checkout."""
    if not order.code:
        return ()
    read = {name: os.path.realpath(file) for name, module in list(sys.modules.items()) if (file := _file_of(module))}
    foreign = sorted((name, file) for name, file in read.items() if _is_foreign(file, order))
    if foreign:
        name, file = foreign[0]
        raise Refused(
            f"the module {name} was read from {file}, which is not of the commit that is compared with",
            remedy="install the repository with `pip install -e .`, or name the folders of its modules in PYTHONPATH",
        )
    own = replace(order, foreign=(order.code, *order.packages.values()))
    return tuple(sorted({os.path.relpath(file, order.code) for file in read.values() if _is_foreign(file, own)}))


def _file_of(module: Any) -> str | None:
    file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    return file if isinstance(file, str) else None


def _is_foreign(path: str, order: TrialOrder) -> bool:
    """Whether a path is of another commit: the longest of the folders that it is in decides."""
    place = os.path.realpath(path)

    def longest(folders: tuple[str, ...]) -> int:
        return max(
            (len(folder) for folder in folders if place == folder or place.startswith(folder + os.sep)), default=0
        )

    return longest(order.foreign) > longest(order.kept)


def main(order: str, answer: str) -> None:
    """Carries out an order and writes the answer, or the failure, into a file."""
    warnings.simplefilter("ignore")  # libraries' notes to developers
    try:
        found = _ANSWER.dump_json(carry_out(_ORDER.validate_json(Path(order).read_bytes())))
    except ReleaseError as error:
        failure = {"exit_code": error.exit_code, "problem": error.problem, "remedy": error.remedy}
        found = json.dumps(failure).encode()
    Path(answer).write_bytes(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
