"""Compares the model of the working tree with the model at another commit.

Both are trained in processes of their own, on the same data with the same split and seed, each by its own `defs.yaml`
and with its own Python source; the platform is the installed one for both. Data that is read from files is read from
where the working tree reads it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from release_platform.adapters.model_package import ModelPackage, load_package
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.errors import DataError, NotFound, Refused
from release_platform.domain.evidence import Baseline
from release_platform.domain.judged import Changes, Judged, judge_candidate, key_changes
from release_platform.domain.records import RawData, TrainedModel
from release_platform.domain.signature import signature_breaks
from release_platform.domain.spec import ContractSpec, ModelSpec, TrainingSpec
from release_platform.gating.changes import data_changes
from release_platform.gating.tree import described_tree
from release_platform.pipeline.assessment import Rival, answers, compared_by_gates, evaluate, positive_index
from release_platform.pipeline.environment import environment, git_root
from release_platform.pipeline.evaluation import compare
from release_platform.pipeline.features import FeatureRows, read_features
from release_platform.pipeline.native import pinned
from release_platform.pipeline.trial_process import TrialOrder, ordered
from release_platform.project import SPEC, Project, parse_spec, read_documents

_PLATFORM = "release_platform"


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two models, trained."""

    raw: RawData
    trained: TrainedModel
    package: ModelPackage
    table: FeatureRows


def judge_commits(project: Project, ref: str, partitions: Sequence[str] | None = None) -> Judged:
    """Returns what comes of the working tree's model beside the model at a commit, by the gates of the working tree.

    Args:
        project: The model of the working tree.
        ref: The commit, as Git names it.
        partitions: The months to use; None: all.

    Raises:
        Refused: The two cannot be compared, or this is no Git repository.
        NotFound: There is no such commit, or no such model there.
        DataError: The data cannot be used, or the two do not see the same rows.
        TrainingError: One of the two cannot be trained.
    """
    root = git_root(project.folder)
    if root is None:
        raise Refused(f"{project.folder} is in no Git repository", remedy="run it in a checkout, or leave --from out")
    commit = _commit(root, ref)
    with TemporaryDirectory() as folder, _worktree(root, commit, Path(folder) / "then") as then:
        before = _project_at(project, then / project.folder.relative_to(root), ref)
        head = replace(project.spec, training=TrainingSpec())  # here, wherever a release would train it
        base = _with_its_data(before.spec, head)
        store = Path(folder) / "snapshots"
        sides = [
            _trained(Project(spec=spec, folder=place), project, store, Path(folder) / name, partitions, (root, code))
            for name, spec, place, code in (
                ("base", base, before.folder, then),
                ("head", head, project.folder, root),
            )
        ]
        return _judged(project, before, f"commit {commit[:12]}", sides[0], sides[1], root)


def _judged(project: Project, before: Project, named: str, base: _Side, head: _Side, root: Path) -> Judged:
    spec = project.spec
    require_the_same_rows(spec.name, named, base.table, head.table)
    said, theirs = answers(head.package, head.table), answers(base.package, base.table)
    rival = Rival(
        baseline=Baseline(
            version=named,
            digest=base.package.digest,
            comparisons=compare(
                spec.task,
                tuple(dict.fromkeys([*spec.every_metric, *compared_by_gates(spec)])),
                head.table.target[head.table.held_out],
                said,
                theirs,
                head.package.classes,
                positive_index(spec, head.package),
                spec.seed,
                production_classes=base.package.classes,
            ),
        ),
        breaks=signature_breaks(base.package.plan, head.package.plan, base.package.classes, head.package.classes),
        notes=_notes(before.spec, spec),
    )
    report = evaluate(spec, head.trained, head.package, head.table, said, rival)
    return Judged(
        model=spec.name,
        subject=described_tree(project.folder),
        report=report,
        gates=judge_candidate(spec.every_gate, report),
        changes=Changes(
            data=data_changes(base.raw.snapshots, head.raw.snapshots),
            code=_changed_files(root, named.removeprefix("commit "), project.folder),
            parameters=key_changes(before.attributes, project.attributes),
        ),
    )


def _commit(root: Path, ref: str) -> str:
    done = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if done.returncode != 0:
        raise NotFound(
            f"there is no commit '{ref}' in {root}",
            remedy="name a commit, branch or tag; in CI, fetch the whole history (fetch-depth: 0)",
        )
    return done.stdout.strip()


@contextmanager
def _worktree(root: Path, commit: str, folder: Path) -> Iterator[Path]:
    done = _git(root, "worktree", "add", "--detach", "--quiet", str(folder), commit)
    if done.returncode != 0:
        raise Refused(f"Git cannot check {commit[:12]} out: {done.stderr.strip()}", remedy="repair the repository")
    try:
        yield folder
    finally:
        _git(root, "worktree", "remove", "--force", str(folder))


def _git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)


def _project_at(project: Project, folder: Path, ref: str) -> Project:
    file, name = folder / "defs.yaml", project.spec.name
    for described in read_documents(file) if file.exists() else ():
        if described["attributes"].get("name") == name:
            return Project(spec=parse_spec(described["attributes"], file=file), folder=folder)
    raise NotFound(f"there is no model {name} at {ref}", remedy="name a commit that has it, or leave --from out")


def _contract_of(then: ModelSpec, now: ModelSpec) -> ContractSpec:
    """Returns the columns of then; for those that there are still, the rules of now: the data is that of now."""
    columns = {name: now.contract.columns.get(name, rules) for name, rules in then.contract.columns.items()}
    return replace(now.contract, columns=columns, unique_together=())


def _with_its_data(then: ModelSpec, now: ModelSpec) -> ModelSpec:
    """Returns a spec that takes data, split and seed from another one."""
    if (then.task, then.target) != (now.task, now.target):
        raise Refused(
            f"{now.name} predicts {now.target.column} now, and predicted {then.target.column} then ({then.task})",
            remedy="two models with different targets cannot be compared; leave --from out",
        )
    same = {name: getattr(now, name) for name in ("source", "partitions", "split", "seed", "training")}
    return replace(then, contract=_contract_of(then, now), **same)


def _notes(then: ModelSpec, now: ModelSpec) -> tuple[str, ...]:
    other = [name for name in ("source", "partitions", "split", "seed") if getattr(then, name) != getattr(now, name)]
    return (f"the other commit's {', '.join(other)} differ; both were trained with those of now",) if other else ()


def _trained(
    of: Project,
    now: Project,
    store: Path,
    package: Path,
    partitions: Sequence[str] | None,
    code: tuple[Path, Path],
) -> _Side:
    paths, packages = _whose_code(of.spec, *code)
    order = TrialOrder(
        attributes=SPEC.dump_python(of.spec, mode="json"),
        place=str(of.folder),
        data=str(now.folder),
        store=str(store),
        package=str(package),
        partitions=None if partitions is None else tuple(partitions),
        paths=paths,
        packages=packages,
    )
    found = ordered(order, pinned(environment(now.folder), os.environ))
    return _Side(
        raw=found.raw,
        trained=found.trained,
        package=load_package(package, found.trained.manifest),
        table=read_features(SnapshotStore(str(store)).read(found.trained.features.snapshot)),
    )


def _whose_code(spec: ModelSpec, root: Path, checkout: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns where Python looks for modules, and the package that it takes from a checkout: that of the source.

    Only a Python source is the model's own code; an estimator is scikit-learn's. The platform's own package is never
    taken from another commit, though the examples in it are.
    """
    paths = tuple(path for path in sys.path if path and Path(path).resolve().is_relative_to(root.resolve()))
    if spec.source.python is None or checkout == root:
        return paths, {}
    parts = spec.source.python.partition(":")[0].split(".")[:-1]
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        found = None if name == _PLATFORM else find_spec(name)
        for place in (found.submodule_search_locations or ()) if found else ():
            if Path(place).resolve().is_relative_to(root.resolve()):
                return paths, {name: str(checkout / Path(place).resolve().relative_to(root.resolve()))}
    return paths, {}


def require_the_same_rows(model: str, named: str, one: FeatureRows, other: FeatureRows) -> None:
    """Refuses two feature tables that do not have the same targets and the same held-out rows, in the same order.

    Raises:
        DataError: They do not.
    """
    same = np.array_equal(one.held_out, other.held_out) and np.array_equal(one.target, other.target)
    if not same:
        raise DataError(
            f"{model}: the source of {named} gives other rows than that of now, so the two cannot be compared in pairs",
            remedy="compare them by `release gate` on each commit, without --from",
        )


def _changed_files(root: Path, commit: str, folder: Path) -> tuple[str, ...]:
    words = {"A": "new", "D": "gone", "M": "changed"}
    lines = _git(root, "diff", "--name-status", "--no-renames", commit, "--", str(folder)).stdout.splitlines()
    lines += [
        f"A\t{name}"
        for name in _git(root, "ls-files", "--others", "--exclude-standard", "--", str(folder)).stdout.splitlines()
    ]
    return tuple(f"{name} is {words.get(status, 'changed')}" for status, _, name in (x.partition("\t") for x in lines))
