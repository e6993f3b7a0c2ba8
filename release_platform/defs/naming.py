"""Keys, groups, tags and code versions that all stages share."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg

from release_platform.domain.freshness_spec import FreshnessSpec
from release_platform.domain.identity import digest_of
from release_platform.pipeline.environment import code_digest, folder_digest, lock_digest
from release_platform.project import Project

MODEL_TAG = "release/model"
STAGES = ("raw_data", "features", "trained_model", "evaluation_report", "registered_version", "production_version")


def asset_key(model: str, stage: str) -> dg.AssetKey:
    """Returns the key of one stage of a model."""
    return dg.AssetKey([model, stage])


def stage_asset(
    project: Project,
    stage: str,
    *,
    kinds: set[str],
    description: str,
    modules: tuple[str, ...],
    attributes: tuple[str, ...],
    **more: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Returns the decorator of one stage's asset: it hands on a record, and its code version is of what makes it.

    Args:
        project: The model.
        stage: One of `STAGES`.
        kinds: Dagster's kinds.
        description: What it is.
        modules: The platform's source files that make it.
        attributes: The attributes of the model's YAML that make it.
        more: Further arguments of `dg.asset`.
    """
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        name=stage,
        key_prefix=project.spec.name,
        code_version=code_version(project, modules, attributes),
        io_manager_key="records",
        **shared(project, stage, kinds=kinds, description=description),
        **more,
    )
    return decorator


def shared(project: Project, stage: str, *, kinds: set[str], description: str) -> dict[str, Any]:
    """Returns the arguments that every asset of a model has, production_version too."""
    spec = project.spec
    fresh = next((rule for asset, rule in spec.freshness.items() if asset == stage), None)
    return {
        "group_name": spec.name,
        "owners": [spec.owner],
        "kinds": kinds,
        "description": description,
        "tags": {MODEL_TAG: spec.name},
        "freshness_policy": None if fresh is None else _policy(fresh),
    }


def _policy(fresh: FreshnessSpec) -> dg.FreshnessPolicy:
    warn = None if fresh.warn_s is None else timedelta(seconds=fresh.warn_s)
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(seconds=fresh.fail_s), warn_window=warn)


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
