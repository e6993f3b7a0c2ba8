"""Compares the model of the working tree with the model at another commit.

Both are trained in processes of their own, on the same data with the same split and seed, each by its own `defs.yaml`
and with its own Python source; the platform is the installed one for both. Data that is read from files is read from
where the working tree reads it; what of it changed since the commit is said beside.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from release_platform.adapters.model_package import ModelPackage, load_package
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.data_spec import ContractSpec
from release_platform.domain.errors import DataError, NotFound, Refused
from release_platform.domain.evidence import Baseline
from release_platform.domain.judged import Changes, Judged, judge_candidate, key_changes
from release_platform.domain.records import RawData, TrainedModel
from release_platform.domain.signature import signature_breaks
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import TrainingSpec
from release_platform.gating.changes import data_changes
from release_platform.gating.code_roots import CodeRoots, find_code_roots
from release_platform.gating.committed_data import committed_changes
from release_platform.gating.repository import Repository
from release_platform.gating.tree import described_tree
from release_platform.pipeline.assessment import Rival, answers, compared_by_gates, evaluate, positive_index
from release_platform.pipeline.environment import environment
from release_platform.pipeline.evaluation import compare
from release_platform.pipeline.features import FeatureRows, read_features
from release_platform.pipeline.native import pinned
from release_platform.pipeline.trial_process import TrialOrder, ordered
from release_platform.project import SPEC, Project, parse_spec, read_documents


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two models, trained."""

    raw: RawData
    trained: TrainedModel
    package: ModelPackage
    table: FeatureRows
    modules: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Code:
    """The checkout that the modules of a side are of, and where the other one's are."""

    roots: CodeRoots
    checkout: Path
    others: tuple[str, ...]


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
    repository = Repository.of(project.folder)
    commit = repository.commit(ref)
    with TemporaryDirectory() as folder, repository.checked_out(commit, Path(folder) / "then") as then:
        before = _project_at(project, then / _name(project, repository), ref)
        head = replace(project.spec, training=TrainingSpec())  # here, wherever a release would train it
        base = _with_its_data(before.spec, head)
        roots = CodeRoots() if head.source.python is None else find_code_roots(repository, head.source.python)
        now = Project(spec=head, folder=project.folder)
        place, store = repository.root, Path(folder) / "snapshots"
        sides = [
            _trained(side, now, store, store.with_name(name), partitions, code)
            for name, side, code in (
                ("base", replace(before, spec=base), _Code(roots=roots, checkout=then, others=_of_now(roots, place))),
                ("head", now, _Code(roots=roots, checkout=place, others=())),
            )
        ]
        changes = Changes(
            data=data_changes(sides[0].raw.snapshots, sides[1].raw.snapshots)
            if head.source.python is not None
            else committed_changes(before, now, sides[1].raw, repository, then, store, partitions),
            code=repository.changed(commit, [_name(project, repository), *sides[0].modules, *sides[1].modules]),
            parameters=key_changes(before.attributes, project.attributes),
        )
        return _judged(project, f"commit {commit[:12]}", sides[0], sides[1], _notes(before.spec, head, roots), changes)


def _name(project: Project, repository: Repository) -> str:
    """Returns the folder of a project, relative to the root of its repository."""
    return project.folder.resolve().relative_to(repository.root).as_posix()


def _judged(project: Project, named: str, base: _Side, head: _Side, notes: tuple[str, ...], changes: Changes) -> Judged:
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
        notes=notes,
    )
    report = evaluate(spec, head.trained, head.package, head.table, said, rival)
    return Judged(
        model=spec.name,
        subject=described_tree(project.folder),
        report=report,
        gates=judge_candidate(spec.every_gate, report),
        changes=changes,
    )


def _project_at(project: Project, folder: Path, ref: str) -> Project:
    file, name = folder / "defs.yaml", project.spec.name
    for described in read_documents(file) if file.exists() else ():
        if described["attributes"].get("name") == name:
            return Project(spec=parse_spec(described["attributes"], file=file), folder=folder)
    raise NotFound(f"there is no model {name} at {ref}", remedy="name a commit that has it, or leave --from out")


def _contract_of(then: ModelSpec, now: ModelSpec) -> ContractSpec:
    """Returns the columns of then, with the rules and the key of now: the data is that of now, and its split."""
    rules = now.contract.columns
    columns = {name: rules.get(name, those) for name, those in then.contract.columns.items()}
    return replace(now.contract, columns=columns | {name: rules[name] for name in now.contract.unique_together})


def _with_its_data(then: ModelSpec, now: ModelSpec) -> ModelSpec:
    """Returns a spec that takes data, split and seed from another one."""
    if (then.task, then.target) != (now.task, now.target):
        raise Refused(
            f"{now.name} predicts {now.target.column} now, and predicted {then.target.column} then ({then.task})",
            remedy="two models with different targets cannot be compared; leave --from out",
        )
    same = {name: getattr(now, name) for name in ("source", "partitions", "split", "seed", "training")}
    return replace(then, contract=_contract_of(then, now), **same)


def _notes(then: ModelSpec, now: ModelSpec, roots: CodeRoots) -> tuple[str, ...]:
    other = [name for name in ("source", "partitions", "split", "seed") if getattr(then, name) != getattr(now, name)]
    said = [f"the other commit's {', '.join(other)} differ; both were trained with those of now"] if other else []
    if roots.outside:
        said.append(f"{now.source.python} is installed from outside of the repository: both were trained with it")
    return tuple(said)


def _of_now(roots: CodeRoots, root: Path) -> tuple[str, ...]:
    """Returns the folders that no module of the commit may be read from."""
    return (str(root), *roots.packages_in(root).values()) if roots.folders or roots.packages or roots.copies else ()


def _trained(
    of: Project, now: Project, store: Path, package: Path, partitions: Sequence[str] | None, code: _Code
) -> _Side:
    python = of.spec.source.python is not None
    order = TrialOrder(
        attributes=SPEC.dump_python(of.spec, mode="json"),
        place=str(of.folder),
        data=str(now.folder),
        store=str(store),
        package=str(package),
        partitions=None if partitions is None else tuple(partitions),
        paths=code.roots.paths_in(code.checkout),
        packages=code.roots.packages_in(code.checkout),
        code=str(code.checkout) if python else "",
        foreign=(*code.others, *code.roots.copies),
        kept=code.roots.kept,
    )
    found = ordered(order, pinned(environment(now.folder), os.environ))
    return _Side(
        raw=found.raw,
        trained=found.trained,
        package=load_package(package, found.trained.manifest),
        table=read_features(SnapshotStore(str(store)).read(found.trained.features.snapshot)),
        modules=found.modules,
    )


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
