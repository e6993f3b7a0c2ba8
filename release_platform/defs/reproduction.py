"""The check that a registered version can be trained again: the same fitted model from what was recorded."""

import os
from typing import Any

import dagster as dg

from release_platform.defs.clean_process import train_again
from release_platform.defs.naming import asset_key
from release_platform.defs.resources import Platform
from release_platform.domain.errors import IntegrityError
from release_platform.pipeline.reproduction import Reproduction
from release_platform.project import Project
from release_platform.services import Services

CHECK = "reproduced"


def build_reproduced_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check over the registered version; it trains again, so no job runs it by itself."""
    key = check_key(project)

    @dg.asset_check(
        asset=key.asset_key,
        name=key.name,
        description="Trained again in a clean process: the same fitted model, the same answers to the golden rows.",
    )
    def reproduced(registered_version: Any, platform: Platform) -> dg.AssetCheckResult:
        version = registered_version.version
        try:
            return result(version, reproduce_version(platform.services, project, version))
        except IntegrityError as error:
            return result(version, error)

    return reproduced


def check_key(project: Project) -> dg.AssetCheckKey:
    """Returns the key of a model's check."""
    return dg.AssetCheckKey(asset_key(project.spec.name, "registered_version"), CHECK)


def reproduce_version(services: Services, project: Project, version: str) -> Reproduction:
    """Returns what came of training a version again, in a process of its own.

    Raises:
        NotFound: There is no such version.
        IntegrityError: What was recorded is gone or was changed.
    """
    registration = services.store.get_registration(project.spec.name, version)
    return train_again(
        project.spec.name,
        version,
        project.folder,
        environment=services.tracking.environment_of(registration.mlflow_run_id),
        variables=os.environ,
    )


def evaluation(project: Project, version: str, outcome: Reproduction | IntegrityError) -> dg.AssetCheckEvaluation:
    """Returns the outcome as an evaluation of the check, for a version that was named by hand."""
    key, found = check_key(project), result(version, outcome)
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=bool(found.passed),
        description=found.description,
        metadata=found.metadata,
    )


def result(version: str, outcome: Reproduction | IntegrityError) -> dg.AssetCheckResult:
    """Returns the outcome as a result of the check; what is gone or was changed cannot be reproduced."""
    if isinstance(outcome, IntegrityError):
        description, metadata = outcome.problem, {"remedy": dg.MetadataValue.text(outcome.remedy)}
        return dg.AssetCheckResult(
            passed=False, description=f"version {version}: {description}", metadata={"version": version, **metadata}
        )
    return dg.AssetCheckResult(
        passed=outcome.same,
        description=f"version {version}: {said(outcome)}",
        metadata={"version": version, **_metadata(outcome)},
    )


def said(found: Reproduction) -> str:
    """Returns the outcome in a sentence."""
    model = f"the same fitted model {found.recorded}" if found.same_model else "another fitted model"
    answers = (
        f"the same answers to {found.n_golden_rows} golden rows"
        if found.same_answers
        else f"answers to {found.n_golden_rows} golden rows differ by up to {found.answers_differ_by:.3g}"
    )
    if found.same:
        without = f" (without effect: {'; '.join(found.differences)})" if found.differences else ""
        return f"{model}, {answers}{without}"
    return f"{model}, {answers}; {_cause(found)}"


def _cause(found: Reproduction) -> str:
    if found.differences:
        return f"what differs: {'; '.join(found.differences)}"
    return f"cause not found: equal are {', '.join(found.compared)}"


def _metadata(found: Reproduction) -> dict[str, Any]:
    return {
        "recorded": found.recorded,
        "found": found.found,
        "same_model": found.same_model,
        "same_answers": found.same_answers,
        "golden_rows": found.n_golden_rows,
        "answers_differ_by": found.answers_differ_by,
        "differences": dg.MetadataValue.md("\n".join(f"- {line}" for line in found.differences) or "none"),
        "compared": dg.MetadataValue.md("\n".join(f"- {line}" for line in found.compared)),
    }
