"""The check that a registered version can be trained again: the same fitted model from what was recorded."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg

from release_platform.defs.naming import asset_key
from release_platform.defs.resources import Platform
from release_platform.domain.errors import NotFound
from release_platform.pipeline.reproduction import Reproduction, reproduce
from release_platform.project import Project
from release_platform.services import Services

CHECK = "reproduced"


def build_reproduced_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check over the registered version; it trains again, so no job runs it by itself."""
    key = check_key(project)

    @dg.asset_check(
        asset=key.asset_key,
        name=key.name,
        description="The version is trained again from its snapshots, spec and seed: the fitted model is the same.",
    )
    def reproduced(registered_version: Any, platform: Platform) -> dg.AssetCheckResult:
        found = reproduce_version(platform.services, project, registered_version.version)
        return dg.AssetCheckResult(passed=found.same, description=said(found), metadata=_metadata(found))

    return reproduced


def check_key(project: Project) -> dg.AssetCheckKey:
    """Returns the key of a model's check."""
    return dg.AssetCheckKey(asset_key(project.spec.name, "registered_version"), CHECK)


def reproduce_version(services: Services, project: Project, version: str) -> Reproduction:
    """Returns what came of training a version again, in this process.

    Raises:
        NotFound: There is no such version.
    """
    model = project.spec.name
    registration = services.store.find_registration(model, version)
    if registration is None:
        raise NotFound(
            f"{model}: there is no version {version}", remedy=f"`release history {model}` lists its versions"
        )
    uris = services.tracking.snapshots_of(registration.mlflow_run_id)
    with TemporaryDirectory() as folder:
        record = services.registry.fetch(model, version, Path(folder))
        return reproduce(
            Path(folder),
            record.manifest,
            snapshots={key: services.snapshots.get(uri) for key, uri in uris.items()},
            store=services.snapshots,
            recorded_digest=registration.model_digest,
            recorded_environment=services.tracking.environment_of(registration.mlflow_run_id),
            place=project.folder,
        )


def evaluation(project: Project, version: str, found: Reproduction) -> dg.AssetCheckEvaluation:
    """Returns the outcome as an evaluation of the check, for a version that was named by hand."""
    key = check_key(project)
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=found.same,
        description=f"version {version}: {said(found)}",
        metadata={"version": version, **_metadata(found)},
    )


def said(found: Reproduction) -> str:
    """Returns the outcome in a sentence."""
    if found.same:
        return f"the same fitted model: {found.recorded}"
    causes = "; ".join(found.differences) or "nothing that was recorded of the surroundings differs"
    return f"another model, answers differ by up to {found.answers_differ_by:.3g}; {causes}"


def _metadata(found: Reproduction) -> dict[str, Any]:
    return {
        "recorded": found.recorded,
        "found": found.found,
        "answers_differ_by": found.answers_differ_by,
        "differences": dg.MetadataValue.md("\n".join(f"- {line}" for line in found.differences) or "none"),
    }
