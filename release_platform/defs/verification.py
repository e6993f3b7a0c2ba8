"""The smoke test of live servers: an asset check, a job that anyone may launch, and a schedule that does every hour.

No promotion waits for it: servers take a move within seconds, and one that does not must not keep others from it.
"""

from collections.abc import Mapping, Sequence
from time import sleep
from typing import Any

import dagster as dg
from pydantic import Field

from release_platform.defs.naming import asset_key
from release_platform.defs.promotion import NamedFailures, Projects, get_project
from release_platform.defs.resources import Platform
from release_platform.domain.errors import NotFound, ReleaseError, Unavailable, VerificationFailed
from release_platform.project import Project
from release_platform.services import Services
from release_platform.verification import Verification, verify_production

SECOND_LOOK_S = 3.0
_COLUMNS = ("server", "protocol", "rows", "ms", "result")


class VerifyForm(dg.Config):
    """Which model is verified, and on which servers."""

    model: str | None = Field(default=None, description="Name of the model; empty for all.")
    urls: list[str] = Field(
        default_factory=list, description="Addresses of the servers; empty for those of RELEASE_SERVING_URL."
    )


def verify_model(
    services: Services, model: str, urls: Sequence[str] = (), *, second_look_s: float = SECOND_LOOK_S
) -> Verification:
    """Returns how the servers answer at two looks: what is wrong at the first only was a move under way.

    Raises:
        NotFound: Nothing is in Production.
        IntegrityError: The version in the registry is not the one that the ledger put there.
        Unavailable: The release store or the registry does not answer.
    """
    settings = services.settings
    addresses, key = tuple(urls) or settings.serving_urls, settings.serving_api_key.get_secret_value()
    first = verify_production(services.releases, model, addresses, api_key=key)
    if not isinstance(first.failure, VerificationFailed):
        return first
    sleep(second_look_s)
    return verify_production(services.releases, model, addresses, api_key=key)


def build_served_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check that every server answers as the registry's model does."""
    key = served_check(project.spec.name)

    @dg.asset_check(
        asset=key.asset_key,
        name=key.name,
        description="Every server answers the golden rows as the registry's model does, through every protocol, bit "
        "by bit, and names the version, digest and epoch of the ledger.",
    )
    def served_as_registered(platform: Platform) -> dg.AssetCheckResult:
        found = _evaluate(platform.services, project.spec.name)
        return dg.AssetCheckResult(
            passed=found.passed, severity=found.severity, description=found.description, metadata=dict(found.metadata)
        )

    return served_as_registered


def served_check(model: str) -> dg.AssetCheckKey:
    """Returns the key of a model's check."""
    return dg.AssetCheckKey(asset_key(model, "production_version"), "served_as_registered")


def build_verification(projects: Projects) -> dg.Definitions:
    """Returns the job that verifies one model or all, and the schedule that launches it every hour."""

    @dg.op(description="Asks live servers the golden rows and keeps what came of it as the check of each model.")
    def ask_servers(context: dg.OpExecutionContext, config: VerifyForm, platform: Platform) -> None:
        with NamedFailures():
            named = projects if config.model is None else {config.model: get_project(projects, config.model)}
        found = [_evaluate(platform.services, name, config.urls) for name in named]
        for one in found:
            context.log_event(one)  # type: ignore[arg-type] # Dagster takes it, though its annotation does not say so
        wrong = [f"{one.asset_key.path[0]}: {one.description}" for one in found if not one.passed]
        if wrong:
            raise dg.Failure("\n".join(wrong), allow_retries=False)

    @dg.job(
        description="Verify that live servers answer as the registry's model does.",
        tags={"dagster/max_retries": "0"},
        executor_def=dg.in_process_executor,
    )
    def verify() -> None:
        ask_servers()

    schedule = dg.ScheduleDefinition(
        name="hourly_verification",
        job=verify,
        cron_schedule="47 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return dg.Definitions(jobs=[verify], schedules=[schedule])


def _evaluate(services: Services, model: str, urls: Sequence[str] = ()) -> dg.AssetCheckEvaluation:
    """Returns what the check says. It warns where servers only do not answer, and has nothing to say of no version."""
    try:
        found = verify_model(services, model, urls)
    except NotFound as error:
        return _evaluation(model, None, {}, description=error.problem)
    except ReleaseError as error:
        return _evaluation(model, error, {"remedy": dg.MetadataValue.text(error.remedy)})
    return _evaluation(model, found.failure, _metadata(found))


def _evaluation(
    model: str, failure: ReleaseError | None, metadata: Mapping[str, Any], *, description: str | None = None
) -> dg.AssetCheckEvaluation:
    key = served_check(model)
    away = isinstance(failure, Unavailable)
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=failure is None,
        severity=dg.AssetCheckSeverity.WARN if away else dg.AssetCheckSeverity.ERROR,
        description=failure.problem if failure else description,
        metadata=metadata,
    )


def _metadata(found: Verification) -> dict[str, Any]:
    expected, servers = found.expected, found.servers
    return {
        "version": expected.version,
        "digest": expected.digest,
        "epoch": expected.epoch,
        "golden_rows": expected.golden.n_rows,
        "servers": len(servers),
        "slowest_ms": max((report.latency_ms for report in servers), default=0.0),
        **{f"slowest_ms {report.url}": report.latency_ms for report in servers},
        "asked": dg.MetadataValue.md(_table(found)),
    }


def _table(found: Verification) -> str:
    """Returns a table in Markdown: what each server answered through each protocol."""
    n_rows = found.expected.golden.n_rows
    lines = [_COLUMNS, ("---",) * len(_COLUMNS)]
    for report in found.servers:
        lines += [
            (report.url, one.protocol, str(n_rows), f"{one.latency_ms:.1f}", one.problem or "equal")
            for one in report.checked
        ]
        lines += [(report.url, name, "", "", f"not asked: {reason}") for name, reason in report.left_out.items()]
        if report.unavailable is not None:
            lines.append((report.url, "", "", "", report.unavailable.problem))
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
