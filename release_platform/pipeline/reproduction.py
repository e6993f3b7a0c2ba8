"""Trains a registered version again from what was recorded, and compares the fitted models."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release_platform.adapters.model_package import load_package
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.errors import IntegrityError
from release_platform.domain.features import as_column
from release_platform.domain.identity import Manifest, digest_of_model
from release_platform.domain.snapshot import Snapshot
from release_platform.domain.spec import ModelSpec
from release_platform.pipeline.environment import environment
from release_platform.pipeline.features import build_feature_table, read_features
from release_platform.pipeline.ingest import read_raw
from release_platform.pipeline.training import fit
from release_platform.project import parse_spec

_EXPECTED_TO_DIFFER = frozenset({"hash_seed", "git_dirty", "platform", "cpus"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What came of training a version again.

    Attributes:
        recorded: Canonical digest of the model that was registered.
        found: The same of the model that was trained again.
        differences: What of the surroundings differs from the recorded ones, in a sentence each.
        answers_differ_by: Largest difference of an answer to the golden inputs.
    """

    recorded: str
    found: str
    differences: tuple[str, ...]
    answers_differ_by: float

    @property
    def same(self) -> bool:
        """Whether both are the same model."""
        return self.recorded == self.found

    def to_json(self) -> dict[str, Any]:
        """Returns the reproduction as a JSON value."""
        return {
            "same": self.same,
            "recorded": self.recorded,
            "found": self.found,
            "differences": list(self.differences),
            "answers_differ_by": self.answers_differ_by,
        }


def reproduce(
    folder: Path,
    manifest: Manifest,
    *,
    snapshots: Mapping[str, Snapshot],
    store: SnapshotStore,
    recorded_digest: str,
    recorded_environment: Mapping[str, str],
    place: Path,
) -> Reproduction:
    """Returns what came of training a version again from its snapshots, its spec and its seed.

    Args:
        folder: The version's files.
        manifest: Their manifest.
        snapshots: The raw data that it was trained on, by partition.
        store: Where that is.
        recorded_digest: Canonical digest of the registered model.
        recorded_environment: `environment` as it was then.
        place: The folder of the model's project, for the commit that is checked out now.

    Raises:
        IntegrityError: A file or a snapshot is not the recorded one.
    """
    package = load_package(folder, manifest, engine="skops")
    spec = _recorded_spec(folder / "release.json")
    table = read_features(build_feature_table(read_raw(store, snapshots), spec))
    fitted = fit(spec, table.features[~table.held_out], table.target[~table.held_out])
    inputs = package.golden["inputs"]
    columns = {column.name: as_column(column, inputs[column.name]) for column in package.plan.inputs}
    return Reproduction(
        recorded=recorded_digest,
        found=digest_of_model(fitted.pipeline),
        differences=_differences(recorded_environment, environment(place)),
        answers_differ_by=package.predict(columns).difference(fitted.predict(package.plan.apply(columns))),
    )


def _recorded_spec(file: Path) -> ModelSpec:
    described = json.loads(file.read_bytes()).get("spec")
    if described is None:
        raise IntegrityError(
            "this version carries no spec: it was registered before versions did",
            remedy="register the model again; new versions can be reproduced",
        )
    return parse_spec(described, file=file)


def _differences(recorded: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    names = sorted({*recorded, *found} - _EXPECTED_TO_DIFFER)
    return tuple(
        f"{name} was {recorded.get(name, 'absent')}, is {found.get(name, 'absent')}"
        for name in names
        if recorded.get(name) != found.get(name)
    )
