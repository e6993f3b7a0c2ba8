"""Trains and judges the model of the working tree; of the release store and the registry it only reads."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from release_platform.adapters.model_package import load_package
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.judged import NOT_COMPARED, Judged, judge_candidate
from release_platform.domain.training_spec import TrainingSpec
from release_platform.gating.changes import NO_CHANGES_KNOWN, changes_since
from release_platform.pipeline.assessment import Production, answers, compared_by_gates, evaluate, production_rival
from release_platform.pipeline.environment import git_state
from release_platform.pipeline.trial import read_data, train
from release_platform.project import Project
from release_platform.services import Services

UNKNOWN = (
    f"{NOT_COMPARED}: no release store is known here; set RELEASE_STORE_URL and RELEASE_MLFLOW_TRACKING_URI, or "
    "compare with a commit by --from"
)


def judge_tree(project: Project, services: Services | None, partitions: Sequence[str] | None = None) -> Judged:
    """Returns what comes of training the model of the working tree and judging it as a release would.

    Args:
        project: The model.
        services: The outside systems, to compare with the version in Production; None where none is known.
        partitions: The months to use; None: all.

    Raises:
        DataError: The data cannot be used.
        TrainingError: The model cannot be trained.
        IntegrityError: The version in Production is not the one that was registered.
    """
    spec = replace(project.spec, training=TrainingSpec())  # here, wherever a release would train it
    production = None if services is None else find_production(services, spec.name)
    with TemporaryDirectory() as folder:
        store = SnapshotStore(str(Path(folder) / "snapshots"))
        data = read_data(spec, project.folder, store, partitions)
        trial = train(spec, project.folder, data.features, data.table, Path(folder) / "package")
        predictions = answers(trial.package, data.table)
        compared = tuple(dict.fromkeys([*spec.every_metric, *compared_by_gates(spec)]))
        rival = production_rival(
            spec, trial.trained, trial.package, data.table, predictions, production, store, compared
        )
        report = evaluate(spec, trial.trained, trial.package, data.table, predictions, rival)
    return Judged(
        model=spec.name,
        subject=described_tree(project.folder),
        report=report,
        gates=judge_candidate(spec.every_gate, report, unknown=UNKNOWN if services is None else ""),
        changes=NO_CHANGES_KNOWN
        if services is None or production is None
        else changes_since(services, project, production.version, data.raw),
    )


def find_production(services: Services, model: str) -> Production | None:
    """Returns the version in Production, fetched and loaded; None before the first promotion.

    Raises:
        IntegrityError: The registry shows another version than the one that was registered.
    """
    version = services.store.head(model).production
    if version is None:
        return None
    with TemporaryDirectory() as folder:
        record = services.releases.fetch_registered(services.store.get_registration(model, version), Path(folder))
        return Production(version=version, package=load_package(Path(folder), record.manifest))


def described_tree(folder: Path) -> str:
    """Returns what is checked out where a folder is, in words."""
    state = git_state(folder)
    if state["git_commit"] == "unknown":
        return "the working tree, which is in no Git repository"
    changed = ", with changes that are not committed" if state["git_dirty"] == "true" else ""
    return f"commit {state['git_commit'][:12]}{changed}"
