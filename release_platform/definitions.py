"""The code location: the examples, a team's own models beside them, and what all models share."""

import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import dagster as dg
from dagster_shared.record import replace

from release_platform.component import ModelRelease, build_model
from release_platform.defs.audit import build_audit
from release_platform.defs.drill import build_drill
from release_platform.defs.lost_runs import build_lost_runs
from release_platform.defs.messages import build_message_sensor
from release_platform.defs.promotion import build_jobs, build_run_closers, build_sensor
from release_platform.defs.recordings import build_recordings_sensor
from release_platform.defs.resources import Platform, Records, release_progress
from release_platform.defs.rollout import build_rollout_job, build_rollout_sensor
from release_platform.defs.verification import build_verification
from release_platform.domain.errors import SpecError
from release_platform.project import Project
from release_platform.settings import Settings

EXAMPLES = Path(__file__).parent / "examples"


def build_definitions(*folders: Path) -> dg.Definitions:
    """Returns the definitions of every model below these folders, with the jobs, sensors and resources they need.

    A folder holds one folder with a `defs.yaml` for each model. A team calls this from its own `definitions.py`:

    ```python
    defs = build_definitions(Path(__file__).parent / "models")
    ```

    Raises:
        SpecError: A `defs.yaml` is wrong, or two models share a name.
    """
    trees = _trees(folders)
    return dg.Definitions.merge(*_built(trees), _shared(_projects(trees)))


def definitions_of(projects: Mapping[str, Project]) -> dg.Definitions:
    """Returns the definitions of these models only."""
    return dg.Definitions.merge(*(build_model(project) for project in projects.values()), _shared(projects))


def _shared(projects: Mapping[str, Project]) -> dg.Definitions:
    jobs = build_jobs(projects)
    promote = next(job for job in jobs if job.name == "promote")
    own = dg.Definitions(
        jobs=[*jobs, build_rollout_job(projects)],
        sensors=[
            build_sensor(projects, promote),
            build_rollout_sensor(projects),
            build_recordings_sensor(projects),
            *build_run_closers(),
            build_lost_runs(),
            build_message_sensor(),
        ],
        resources={"platform": Platform(), "records": Records()},
        loggers={"release_progress": release_progress},
        executor=dg.in_process_executor,
    )
    drill = build_drill(projects, Settings().drill_cron)
    return dg.Definitions.merge(own, build_audit(projects), build_verification(projects), drill)


def _built(trees: Sequence[dg.ComponentTree]) -> list[dg.Definitions]:
    """Returns the definitions of each tree; the first keeps its tree, since merged definitions have one at most."""
    return [
        tree.build_defs() if number == 0 else replace(tree.build_defs(), component_tree=None)
        for number, tree in enumerate(trees)
    ]


def load_projects(*folders: Path) -> dict[str, Project]:
    """Returns the projects of every model below these folders, by name.

    Raises:
        SpecError: A `defs.yaml` is wrong, or two models share a name.
    """
    return _projects(_trees(folders))


def model_folders() -> tuple[Path, ...]:
    """Returns where models are looked for: the examples, and the folder of the settings."""
    return (EXAMPLES, Settings().models.resolve())


def _trees(folders: Iterable[Path]) -> list[dg.ComponentTree]:
    """Returns the tree of each folder that describes a model; Dagster cannot read one that describes nothing."""
    return [_tree(folder) for folder in folders if any(folder.rglob("defs.yaml"))]


def _tree(folder: Path) -> dg.ComponentTree:
    folder = folder.resolve()
    module = importlib.import_module("release_platform.examples") if folder == EXAMPLES else _package(folder)
    return dg.ComponentTree.from_module(module, project_root=folder.parent)


def _package(folder: Path) -> ModuleType:
    """Returns the package that a folder is, whatever else is called so.

    Its neighbours, such as a module that a `source` names, are found after all that is installed: every process of a
    run takes its path over from here, and a `dagster` or a `queue.py` of whoever calls is not to be taken for the real.
    """
    beside = str(folder.parent)
    if beside not in sys.path:
        sys.path.append(beside)
    sys.path.insert(0, beside)
    try:
        return importlib.import_module(folder.name)
    finally:
        sys.path.remove(beside)


def _projects(trees: Sequence[dg.ComponentTree]) -> dict[str, Project]:
    found: dict[str, Project] = {}
    for tree in trees:
        for component in tree.get_all_components(of_type=ModelRelease):
            name = component.project.spec.name
            if name in found:
                raise SpecError(
                    f"the model '{name}' is also described in {found[name].folder / 'defs.yaml'}",
                    remedy="give each model its own name",
                    file=str(component.project.folder / "defs.yaml"),
                    field="name",
                )
            found[name] = component.project
    return found


@dg.definitions
def defs() -> dg.Definitions:
    """Returns the definitions of the code location.

    Raises:
        Refused: The profile needs settings that are not set.
    """
    Settings().check()
    return build_definitions(*model_folders())
