"""Judges a registered version by its recorded evaluation report, with the gates of the working tree."""

import json

from release_platform.domain.errors import IntegrityError
from release_platform.domain.evidence import EvaluationReport
from release_platform.domain.judged import Judged, judge_candidate
from release_platform.domain.policy import Registration
from release_platform.gating.changes import NO_CHANGES_KNOWN, changes_between
from release_platform.lineage import find_version
from release_platform.project import Project
from release_platform.services import Services


def judge_version(project: Project, services: Services, version: str) -> Judged:
    """Returns what the gates of the working tree say of a registered version.

    Args:
        project: The model.
        services: The outside systems.
        version: The version.

    Raises:
        NotFound: There is no such version.
        IntegrityError: Its report is gone, or is not the one that was registered.
    """
    registration = find_version(services, project.spec.name, version)
    report = recorded_report(services, registration)
    compared = report.baseline
    return Judged(
        model=project.spec.name,
        subject=f"version {version}, by its recorded report",
        report=report,
        gates=judge_candidate(project.spec.every_gate, report),
        changes=changes_between(services, project, compared.version, version) if compared else NO_CHANGES_KNOWN,
    )


def recorded_report(services: Services, registration: Registration) -> EvaluationReport:
    """Returns the evaluation report that a version was registered with.

    Raises:
        IntegrityError: It is gone, or is not the one that was registered.
    """
    of = f"{registration.model} version {registration.version}"
    data = services.tracking.find_report(registration.model, registration.report_digest)
    if data is None:
        raise IntegrityError(
            f"{of}: its evaluation report is not in MLflow any more",
            remedy=f"restore MLflow from a backup, or register the model again with `release run {registration.model}`",
        )
    try:
        report = EvaluationReport.from_json(json.loads(data))
        found = report.digest
    except (ValueError, KeyError, TypeError) as error:
        found = f"unreadable: {error}"
    if found != registration.report_digest:
        raise IntegrityError(
            f"{of}: its evaluation report in MLflow is not the one that was registered ({found})",
            remedy="find out who changed it; restore MLflow from a backup, or register the model again",
        )
    return report
