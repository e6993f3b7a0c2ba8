"""Keys, groups, tags and code versions that all stages share."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from release_platform.domain.identity import digest_of
from release_platform.pipeline.environment import code_digest, folder_digest, lock_digest
from release_platform.project import Project

MODEL_TAG = "release/model"
STAGES = ("raw_data", "features", "trained_model", "evaluation_report", "registered_version", "production_version")


def asset_key(model: str, stage: str) -> dg.AssetKey:
    """Returns the key of one stage of a model."""
    return dg.AssetKey([model, stage])


def shared(project: Project, *, kinds: set[str], description: str) -> dict[str, Any]:
    """Returns the arguments that every asset of a model has."""
    spec = project.spec
    return {
        "key_prefix": spec.name,
        "group_name": spec.name,
        "owners": [spec.owner],
        "kinds": kinds,
        "description": description,
        "tags": {MODEL_TAG: spec.name},
    }


def code_version(project: Project, modules: tuple[str, ...], attributes: tuple[str, ...]) -> str:
    """Returns the hash of what makes an asset: the platform's modules, the model's own Python, its YAML, the lock."""
    return digest_of(
        [code_digest(*modules), folder_digest(project.folder), project.digest_of_parts(*attributes), lock_digest()]
    )


def link(url: str) -> dg.MetadataValue:
    """Returns a link as metadata."""
    return dg.MetadataValue.url(url)


def numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """Returns the numbers that there are: Dagster plots numeric metadata from materialization to materialization."""
    return {name: float(value) for name, value in values.items() if value is not None}
