"""What changed in the raw data between a commit and the working tree, where the data is in the repository."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.data_spec import SourceSpec
from release_platform.domain.errors import ReleaseError
from release_platform.domain.records import RawData
from release_platform.domain.spec import ModelSpec
from release_platform.gating.changes import data_changes
from release_platform.gating.repository import Repository
from release_platform.pipeline.files import find_files
from release_platform.pipeline.sources import describe
from release_platform.pipeline.trial import read_raw_data
from release_platform.project import Project


def committed_changes(
    then: Project,
    now: Project,
    raw: RawData,
    repository: Repository,
    checkout: Path,
    store: Path,
    partitions: Sequence[str] | None,
) -> tuple[str, ...]:
    """Returns a sentence for each difference of the data, or one that says why it was not compared.

    Args:
        then: The model at the commit, in its checkout.
        now: The model of the working tree.
        raw: The data of now.
        repository: The repository.
        checkout: The root of the commit's checkout.
        store: Where snapshots go.
        partitions: The months to use; None: all.
    """
    ours, theirs = _address(now.spec.source), _address(then.spec.source)
    if ours is None or not _is_committed(now.folder, ours, repository):
        return (f"not compared: {describe(now.spec.source)} is not in the repository",)
    inside = (
        None if theirs is None else _in_checkout(then.folder / Path(theirs).expanduser(), repository.root, checkout)
    )
    if inside is None:
        return (f"not compared: {describe(then.spec.source)}, the source at the commit, is not in the repository",)
    try:
        before = read_raw_data(_reading(then.spec, inside), checkout, SnapshotStore(str(store)), partitions)
    except ReleaseError as error:
        return (f"not compared: the data of the commit cannot be read: {error.problem}",)
    return data_changes(before.snapshots, raw.snapshots)


def _address(source: SourceSpec) -> str | None:
    """Returns the path of a source on disk; None for any other."""
    if source.package is not None:
        first, *inner = source.package.package.split(".")
        found = find_spec(first)
        places = [] if found is None else list(found.submodule_search_locations or ())
        return str(Path(places[0], *inner, source.package.file)) if places else None
    address = source.csv or source.parquet
    return None if address is None or "://" in address else address


def _in_checkout(path: Path, root: Path, checkout: Path) -> str | None:
    """Returns where the checkout has a path, which may be one of the working tree; None for one outside of both."""
    there = path.parent.resolve() / path.name
    if there.is_relative_to(checkout):
        return str(there)
    return str(checkout / there.relative_to(root)) if there.is_relative_to(root) else None


def _is_committed(folder: Path, address: str, repository: Repository) -> bool:
    """Whether every file of now is in the repository, or would be with the next commit."""
    files = [Path(file.path).resolve() for file in find_files(address, base=folder)]
    return all(file.is_relative_to(repository.root) for file in files) and not repository.ignored(files)


def _reading(spec: ModelSpec, address: str) -> ModelSpec:
    parquet = address.endswith((".parquet", ".pq")) if spec.source.package else spec.source.parquet is not None
    return replace(spec, source=SourceSpec(parquet=address) if parquet else SourceSpec(csv=address))
