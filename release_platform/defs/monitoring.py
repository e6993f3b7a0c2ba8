"""drift_report: recorded requests against what the Production version was trained on, day by day.

The evidence goes on from run to run: each materialization keeps it with the last day that it saw, and the next one
takes it up where it is of the same version and promise. So the budget holds however often the asset is materialized.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from release_platform.adapters.model_package import ModelPackage, load_package
from release_platform.defs.clean_process import get_registration
from release_platform.defs.naming import asset_key, numbers, shared
from release_platform.defs.promotion import NamedFailures
from release_platform.defs.resources import Platform
from release_platform.domain.alarms import Budget, Detector
from release_platform.domain.errors import IntegrityError, NotFound
from release_platform.domain.json_form import exactly
from release_platform.pipeline.drift import DriftReport, run
from release_platform.pipeline.drift_reference import Known, build_reference
from release_platform.pipeline.drift_report import markdown, render_drift
from release_platform.pipeline.recorded_data import read_recorded
from release_platform.pipeline.reproduction import recorded_spec
from release_platform.project import Project
from release_platform.services import Services

STAGE = "drift_report"
CHECK = "no_drift"
STATE = "drift_state"
DAILY = "23 2 * * *"
"""In UTC: more than the hour later for which servers keep samples."""
MOST_DAYS = 31
"""Days that one run looks at, at most: the newest."""


class DriftForm(dg.Config):
    """What is promised."""

    false_alarms_per_month: float | None = Field(
        default=None, gt=0, description="False alarms in 30 days, on average, at most; empty: the model's drift.budget."
    )
    smallest: float | None = Field(
        default=None, ge=0, lt=1, description="The smallest share of rows that matters; empty: the model's."
    )


@dataclass(frozen=True, kw_only=True)
class MonitoredVersion:
    """The version in Production, loaded, with its reference."""

    version: str
    package: ModelPackage
    known: Known
    positive: object | None


def load_version(services: Services, project: Project) -> MonitoredVersion:
    """Returns the version of a model that is in Production; its reference is made from its recorded training data.

    Raises:
        NotFound: Nothing is in Production.
        IntegrityError: The version or its data is not what was registered.
        Unavailable: An outside system does not answer.
    """
    model = project.spec.name
    version = services.store.head(model).production
    if version is None:
        raise NotFound(f"{model}: nothing is in Production", remedy=f"promote a version: `release promote {model}`")
    registration = get_registration(services, model, version)
    uris = services.tracking.snapshots_of(registration.mlflow_run_id)
    raw = read_recorded(services.snapshots, uris, registration.fingerprint)
    with TemporaryDirectory() as folder:
        record = services.registry.fetch(model, version, Path(folder))
        if record.digest != registration.digest:
            raise IntegrityError(
                f"{model} version {version}: its manifest in MLflow is not the one that was registered",
                remedy="find out who changed the version's tags; roll back, or register the model again",
            )
        package = load_package(Path(folder), record.manifest)
        spec = recorded_spec(Path(folder) / "release.json")
    known = build_reference(spec, package, raw, version=version)
    return MonitoredVersion(version=version, package=package, known=known, positive=spec.target.positive_label)


def read_recordings(services: Services, version: MonitoredVersion, *, since: datetime, until: datetime) -> pd.DataFrame:
    """Returns the recorded rows of a period, its beginning included and its end not; an empty table for none.

    Raises:
        Unavailable: The storage does not answer.
    """
    return services.recordings.read_period(version.package.model, version.version, since=since, until=until)


def build_drift_report(project: Project) -> dg.AssetsDefinition:
    """Returns the asset of a model's drift, with its check; no release materializes it."""
    name = project.spec.name
    described = shared(
        project,
        kinds={"python"},
        description="Recorded requests of each finished day against the training data of the version in Production.",
    )
    described["group_name"] = f"{name}_monitoring"
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        name=STAGE,
        key_prefix=name,
        deps=[asset_key(name, "production_version")],
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=asset_key(name, STAGE),
                description="No day since the last report drifted. Without a recorded row it does not pass.",
            )
        ],
        **described,
    )

    @decorator
    def drift_report(context: dg.AssetExecutionContext, config: DriftForm, platform: Platform) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster takes a result with checks only as it is
        with NamedFailures():
            platform.services.settings.check()
            budget = project.spec.drift.promise(budget=config.false_alarms_per_month, smallest=config.smallest)
            version = load_version(platform.services, project)
            report, state = monitor(
                platform.services, version, budget, _state(context.instance, name), now=datetime.now(UTC)
            )
            page = _write(platform.services, report)
        return dg.MaterializeResult(metadata=_metadata(report, state, page), check_results=[_checked(report)])

    return drift_report


def build_drift_job(project: Project) -> Any:
    """Returns the job that makes a model's drift report; it holds up no release of the model."""
    name = project.spec.name
    return dg.define_asset_job(
        f"drift_{name}",
        selection=dg.AssetSelection.assets(asset_key(name, STAGE)),
        description=f"Compare the recorded requests of {name} with what its Production version was trained on.",
    )


def build_drift_schedule(project: Project) -> dg.ScheduleDefinition:
    """Returns the schedule that makes the report once a day, when the day before is recorded; off until switched on."""
    name = project.spec.name
    return dg.ScheduleDefinition(
        name=f"drift_{name}_daily",
        job_name=f"drift_{name}",
        cron_schedule=DAILY,
        description=f"The drift report of {name}, of each finished day.",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )


def monitor(
    services: Services, version: MonitoredVersion, budget: Budget, state: object, *, now: datetime
) -> tuple[DriftReport, dict[str, Any]]:
    """Returns what the finished days after the last report show, and what the next report goes on from.

    Args:
        services: Where the recorded requests are.
        version: The version in Production.
        budget: What is promised.
        state: What the last report left; None for none. That of another version or promise counts as none.
        now: The time; its day is not finished.

    Raises:
        Unavailable: The storage does not answer.
    """
    names = list(version.known.reference.every)
    detector, last = _continued(state, version.version, budget, names)
    first = max(last + timedelta(days=1), now.date() - timedelta(days=MOST_DAYS))
    model = version.package.model
    days = [day for day in services.recordings.days(model, version.version) if first <= day < now.date()]
    frame = services.recordings.read(model, version.version, days)
    report = run(
        version.known,
        version.package,
        frame,
        positive=version.positive,
        budget=budget,
        at=now,
        source=f"the recorded requests of {model}",
        detector=detector,
    )
    seen = max(days, default=last)
    return report, {
        "version": version.version,
        "budget": budget.per_month,
        "smallest": budget.smallest,
        "last_day": seen.isoformat(),
        "detector": report.detector.to_json(),
    }


def _continued(state: object, version: str, budget: Budget, names: list[str]) -> tuple[Detector, date]:
    if state is not None:
        of = exactly(
            state, "state", version=str, budget=(float, int), smallest=(float, int), last_day=str, detector=dict
        )
        if (of["version"], of["budget"], of["smallest"]) == (version, budget.per_month, budget.smallest):
            return Detector.from_json(of["detector"], names, budget), date.fromisoformat(of["last_day"])
    return Detector.of(names, budget), date.min


def _state(instance: dg.DagsterInstance, model: str) -> object:
    event = instance.get_latest_materialization_event(asset_key(model, STAGE))
    made = None if event is None else event.asset_materialization
    return None if made is None or STATE not in made.metadata else made.metadata[STATE].value


def _write(services: Services, report: DriftReport) -> Path:
    day = report.windows[-1].begins.date().isoformat() if report.windows else "nothing"
    folder = services.settings.root / "drift" / report.reference.model
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{report.reference.version}-{day}.html"
    page.write_text(render_drift(report), encoding="utf-8")
    return page


def _checked(report: DriftReport) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=bool(report.n_rows) and not report.alarms,
        severity=dg.AssetCheckSeverity.WARN,
        description=report.said,
        metadata={"rows": report.n_rows, "days": len(report.windows), "alarms": len(report.alarms)},
    )


def _metadata(report: DriftReport, state: dict[str, Any], page: Path) -> dict[str, Any]:
    quality = {f"expected_{quality.value}": one.value for quality, one in report.quality.items()}
    psi = {f"psi/{name}": one.psi for name, one in report.altogether.items()}
    return {
        "version": report.reference.version,
        "dagster/row_count": report.n_rows,
        "days": len(report.windows),
        "alarms": len(report.alarms),
        "columns_that_drifted": ", ".join(report.columns) or "none",
        "schema": "; ".join(report.schema) or "as it was",
        "columns": dg.MetadataValue.md(markdown(report)),
        "report": dg.MetadataValue.path(str(page)),
        STATE: dg.MetadataValue.json(state),
        **numbers(psi | quality | {"domain_classifier_auc": report.telling.auc if report.telling else None}),
    }
