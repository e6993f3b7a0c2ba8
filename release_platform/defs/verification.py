"""The smoke test of live servers: an asset check, a job that anyone may launch, and what launches it.

A schedule does every hour. Where a model's rollback policy counts failures, a sensor does after each promotion,
and again after one that failed. No promotion waits for it: servers take a move within seconds, and one that does not
must not keep others from it.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from time import sleep
from typing import Any

import dagster as dg
from pydantic import Field

from release_platform.defs.naming import asset_key
from release_platform.defs.promotion import NamedFailures, Projects, get_project
from release_platform.defs.resources import Platform
from release_platform.domain.errors import NotFound, ReleaseError, Unavailable, VerificationFailed
from release_platform.domain.rollback import Watched, find_watched
from release_platform.domain.verified import is_due
from release_platform.project import Project
from release_platform.services import Services
from release_platform.settings import NO_SERVER
from release_platform.verification import Verification, keep, verify_production

SECOND_LOOK_S = 3.0
SENSOR_INTERVAL_S = 5
_LOG = logging.getLogger(__name__)
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

    What the servers of RELEASE_SERVING_URL answer is kept, for the model's rollback policy.

    Raises:
        NotFound: Nothing is in Production.
        IntegrityError: The version in the registry is not the one that the ledger put there.
        Unavailable: There is no server to ask, or the release store or the registry does not answer.
    """
    settings = services.settings
    addresses, key = tuple(urls) or services.server_urls, settings.serving_api_key.get_secret_value()
    if not addresses:
        raise Unavailable(NO_SERVER, remedy="set it to the addresses of the servers, then verify again")
    found = verify_production(services.releases, model, addresses, api_key=key)
    if isinstance(found.failure, VerificationFailed):
        sleep(second_look_s)
        found = verify_production(services.releases, model, addresses, api_key=key)
    problem = "" if urls else keep(services.releases, found, datetime.now(UTC))
    if problem:
        _LOG.warning("%s: %s", model, problem)
    return found


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
    """Returns the job that verifies one model or all, the schedule and the sensor that launch it."""

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

    @dg.schedule(
        name="hourly_verification",
        job=verify,
        cron_schedule="47 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def hourly_verification(platform: Platform) -> dg.RunRequest | dg.SkipReason:
        return dg.RunRequest() if platform.services.settings.serving_urls else dg.SkipReason(NO_SERVER)

    @dg.sensor(
        name="verification_sensor",
        job=verify,
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Verifies what was promoted, where the model's rollback policy counts verifications that failed.",
    )
    def verification_sensor(platform: Platform) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if not platform.services.settings.serving_urls:
            yield dg.SkipReason(NO_SERVER)
            return
        said, due = list[str](), list[dg.RunRequest]()
        for name, project in projects.items():
            try:
                due += _due(platform.services, project, datetime.now(UTC))
            except ReleaseError as error:  # one model must not keep others from being verified
                said.append(f"{name}: {error.problem}")
        if not due:
            yield dg.SkipReason("\n".join(said) or "nothing was promoted that is not verified")
        yield from due

    return dg.Definitions(jobs=[verify], schedules=[hourly_verification], sensors=[verification_sensor])


def _due(services: Services, project: Project, at: datetime) -> Iterator[dg.RunRequest]:
    """Yields the run that verifies a model now, if one is due; the same one until another verification was kept."""
    spec, store = project.spec, services.store
    policy = spec.rollback_policy
    if policy is None or not policy.failed_verifications:
        return
    watched = find_watched(policy, store.head(spec.name), store.ledger(spec.name), at)
    if not isinstance(watched, Watched):
        return
    verified = store.verifications.since(spec.name, watched.row.at)
    if is_due(watched.row, verified, at, wanted=policy.failed_verifications):
        config = {"ops": {"ask_servers": {"config": {"model": spec.name}}}}
        yield dg.RunRequest(run_key=f"verify {spec.name} {watched.row.epoch} {len(verified)}", run_config=config)


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
