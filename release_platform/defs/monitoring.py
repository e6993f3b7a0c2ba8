"""drift_report: recorded requests against what the Production version was trained on, day by day.

Each day is a partition, and a run is over the days that it is asked for. The evidence goes on from day to day: the
materialization of a day keeps it, and the next one takes up that of the last day before its own, where it is of the
same version and promise. So the budget holds however often the asset is materialized, and a day that is reported again,
from the same rows, says the same.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field

from release_platform.adapters.call_counts import calls_of
from release_platform.adapters.model_package import ModelPackage
from release_platform.adapters.recordings import LABEL, PREDICTION_ID
from release_platform.defs.naming import asset_key, link, numbers, shared
from release_platform.defs.promotion import NamedFailures
from release_platform.defs.resources import Platform
from release_platform.domain.alarms import Budget, Detector
from release_platform.domain.distances import Difference
from release_platform.domain.drift import WindowDrift
from release_platform.domain.errors import NotFound, Refused
from release_platform.domain.history import HISTORY_DAYS, MOST_APART, DayShape
from release_platform.domain.json_form import exactly
from release_platform.domain.multivariate import ClassifierTest
from release_platform.domain.real_quality import QUALITY_MARGIN, RealErrors, RealQuality
from release_platform.domain.refusals import Calls
from release_platform.drift_pages import drop_pages, keep_page
from release_platform.pipeline.drift import DriftReport, run
from release_platform.pipeline.drift_days import drift_days
from release_platform.pipeline.drift_reference import Known
from release_platform.pipeline.drift_report import markdown, render_drift
from release_platform.pipeline.tracking import Labelled, TrackedRows
from release_platform.project import Project
from release_platform.references import load_known
from release_platform.services import Services

STAGE = "drift_report"
CHECK = "no_drift"
STATE = "drift_state"
DAILY = "23 2 * * *"
"""In UTC: more than the hour later for which servers keep samples."""
MOST_DAYS = 31
"""Days that are looked back at, at most: for those that were never reported, and for labels that came."""
DUE = (
    dg.AutomationCondition.cron_tick_passed(DAILY).with_label(f"it is {DAILY} (cron, UTC)")
    & dg.AutomationCondition.missing().with_label("the day was never reported")
    & dg.AutomationCondition.in_latest_time_window(timedelta(days=MOST_DAYS)).with_label(f"of the last {MOST_DAYS}")
    & ~dg.AutomationCondition.in_progress()
    & ~dg.AutomationCondition.any_deps_missing().with_label("nothing was ever in Production")
).with_label("each morning, the finished days that were never reported")
RECENT = 1000
"""Materializations in which the evidence of the days before is looked for."""
_CAME = "came"
_NO_ROWS: dict[str, Any] = {"dagster/row_count": 0}


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
    """The version in Production, loaded, with its reference, and why that was made anew, if it was."""

    version: str
    package: ModelPackage
    known: Known
    positive: object | None
    made_anew: str = ""


def load_version(services: Services, project: Project) -> MonitoredVersion:
    """Returns the version of a model that is in Production, with the reference that is kept with it.

    Raises:
        NotFound: Nothing is in Production.
        IntegrityError: The version, its reference or its data is not what was registered.
        Unavailable: An outside system does not answer.
    """
    model = project.spec.name
    version = services.store.head(model).production
    if version is None:
        raise NotFound(f"{model}: nothing is in Production", remedy=f"promote a version: `release promote {model}`")
    found = load_known(services, services.store.get_registration(model, version))
    return MonitoredVersion(
        version=version,
        package=found.package,
        known=found.known,
        positive=found.spec.target.positive_label,
        made_anew=found.made_anew,
    )


def read_recordings(services: Services, version: MonitoredVersion, *, since: datetime, until: datetime) -> pd.DataFrame:
    """Returns the recorded rows of a period, its beginning included and its end not; an empty table for none.

    Raises:
        Unavailable: The storage does not answer.
    """
    return services.recordings.read_period(version.package.model, version.version, since=since, until=until)


def read_labelled(services: Services, version: MonitoredVersion, *, since: date, until: date) -> Labelled:
    """Returns the recorded rows of some days whose labels came, whenever they came; of a request its first row.

    Args:
        services: Where requests and labels are.
        version: The version.
        since: The first day of the requests, included.
        until: The last one, not included.

    Raises:
        Unavailable: The storage does not answer.
    """
    model = version.package.model
    of = (model, version.version)
    came = [
        told.assign(**{_CAME: np.datetime64(day)})
        for day, told in services.labels.each_day(*of, since=since, until=date.max)
    ]
    nothing = Labelled(frame=pd.DataFrame(), labels=np.empty(0, dtype=object))
    if not came:
        return nothing
    known = pd.concat(came, ignore_index=True).drop_duplicates(PREDICTION_ID).set_index(PREDICTION_ID)
    parts = [
        rows[rows[PREDICTION_ID].isin(known.index)].drop_duplicates(PREDICTION_ID)
        for _, rows in services.recordings.each_day(*of, since=since, until=until)
        if PREDICTION_ID in rows
    ]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if frame.empty:
        return nothing
    told = known.loc[frame[PREDICTION_ID]]
    days = told[_CAME].to_numpy(dtype="datetime64[D]")
    return Labelled(frame=frame, labels=told[LABEL].to_numpy(dtype=object), came=days)


def build_drift_report(project: Project) -> dg.AssetsDefinition:
    """Returns the asset of a model's drift, with its check; no release materializes it."""
    name = project.spec.name
    described = shared(
        project,
        STAGE,
        kinds={"python"},
        description="Recorded requests of each finished day against the training data of the version in Production.",
    )
    described["group_name"] = f"{name}_monitoring"
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        name=STAGE,
        key_prefix=name,
        deps=[asset_key(name, "production_version")],
        partitions_def=dg.DailyPartitionsDefinition(start_date=project.spec.drift.first_day, timezone="UTC"),
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=DUE,
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=asset_key(name, STAGE),
                description="No day of the report drifted. Without a recorded row it does not pass.",
            )
        ],
        **described,
    )

    @decorator
    def drift_report(context: dg.AssetExecutionContext, config: DriftForm, platform: Platform) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster takes a result with checks only as it is
        services, now = platform.services, datetime.now(UTC)
        with NamedFailures():
            chosen = _chosen(context)
            services.settings.check()
            budget = project.spec.drift.promise(budget=config.false_alarms_per_month, smallest=config.smallest)
            version = load_version(services, project)
            states = _states(context.instance, name)
            margin = project.spec.drift.quality_margin
            report = monitor(services, version, budget, states, chosen, now=now, margin=margin)
            page = _keep(services, project, report, now.date())
            run_url = f"{services.settings.dagster_url}/runs/{context.run.run_id}"
            asked = project.spec.drift.on_alarm
            for found in drift_days(report, on_alarm=asked, page=page, run_url=run_url, at=now):
                services.store.drift.record(found)
        of_days = {window.begins.date(): _day_metadata(report, window, page) for window in report.windows}
        for day in chosen:
            context.add_asset_metadata(of_days.get(day, _NO_ROWS), context.asset_key, day.isoformat())
        reference = {"reference": version.made_anew or "kept with the version"}
        context.add_asset_metadata(_altogether(report) | reference, context.asset_key, chosen[-1].isoformat())
        return dg.MaterializeResult(check_results=[_checked(report)])

    return drift_report


def _chosen(context: dg.AssetExecutionContext) -> list[date]:
    """Returns the days that a run is over, in order."""
    if not (context.has_partition_key or context.has_partition_key_range):
        raise Refused("a drift report is of days, and the run names none", remedy="choose days under Materialize")
    return [date.fromisoformat(key) for key in context.partition_keys]


def build_drift_automation(project: Project) -> dg.AutomationConditionSensorDefinition:
    """Returns what makes the report of each day once it is over and recorded, see `DUE`; off until switched on."""
    name = project.spec.name
    return dg.AutomationConditionSensorDefinition(
        f"drift_{name}_daily",
        target=dg.AssetSelection.assets(asset_key(name, STAGE)),
        description=f"Each morning at 02:23 UTC the drift report of {name}, of the finished days that have none.",
        default_status=dg.DefaultSensorStatus.STOPPED,
    )


def monitor(
    services: Services,
    version: MonitoredVersion,
    budget: Budget,
    states: Sequence[object],
    chosen: Sequence[date],
    *,
    now: datetime,
    margin: float = QUALITY_MARGIN,
) -> DriftReport:
    """Returns what finished days show.

    Args:
        services: Where the recorded requests are.
        version: The version in Production.
        budget: What is promised.
        states: What reports left, the newest first. Those of another version or promise count for nothing.
        chosen: The days, in order.
        now: The time; its day is not finished.
        margin: By which share of the rows answers may be wrong more often than on held-out rows.

    Raises:
        Unavailable: The storage does not answer.
    """
    names, model = version.known.reference.watched, version.package.model
    recorded = {*services.recordings.days(model, version.version), *services.calls.days(model, version.version)}
    days = [day for day in chosen if day in recorded and day < now.date()]
    history, before = _history(services, version, days)
    return run(
        version.known,
        version.package,
        services.recordings.read(model, version.version, days),
        positive=version.positive,
        budget=budget,
        at=now,
        source=f"the recorded requests of {model}",
        detector=_continued(states, version.version, budget, names, before=chosen[0]),
        labelled=read_labelled(services, version, since=now.date() - timedelta(days=MOST_DAYS), until=now.date()),
        quality_margin=margin,
        history=history,
        before=before,
        calls=read_calls(services, version, days),
    )


def read_calls(services: Services, version: MonitoredVersion, days: Collection[date]) -> dict[date, Calls]:
    """Returns how many calls came on some days, and were refused; only days on which any came.

    Raises:
        Unavailable: The storage does not answer.
    """
    if not days:
        return {}
    of, until = (version.package.model, version.version), max(days) + timedelta(days=1)
    found = {
        day: calls_of(table) for day, table in services.calls.each_day(*of, since=min(days), until=until) if day in days
    }
    return {day: calls for day, calls in found.items() if calls.n_calls}


def read_history(services: Services, model: str, day: date) -> tuple[DayShape, ...]:
    """Returns what the reported days of a model teach that lie before a day, in their order.

    Raises:
        Unavailable: The database does not answer.
    """
    known = services.store.drift.days_before(model, day, most=HISTORY_DAYS)
    return tuple(one.shape for one in known if one.shape is not None)


def _history(
    services: Services, version: MonitoredVersion, days: Sequence[date]
) -> tuple[tuple[DayShape, ...], pd.DataFrame | None]:
    """Returns what the days before some days teach, and the last one's rows of the version; nothing for no days."""
    if not days:
        return (), None
    model = version.package.model
    history = read_history(services, model, days[0])
    last = next((one.day for one in reversed(history) if one.version == version.version), None)
    if last is None or days[0] - last > timedelta(days=MOST_APART):
        return history, None
    return history, services.recordings.read(model, version.version, [last])


def _state(report: DriftReport, detector: Detector, last_day: date) -> dict[str, Any]:
    return {
        "version": report.reference.version,
        "budget": detector.budget.per_month,
        "smallest": detector.budget.smallest,
        "last_day": last_day.isoformat(),
        "detector": detector.to_json(),
    }


def _continued(states: Sequence[object], version: str, budget: Budget, names: list[str], *, before: date) -> Detector:
    """Returns the evidence of the last day that was reported, of this version and promise.

    Args:
        states: What reports left, the newest first: of a day that was reported again the newest holds.
        version: The version.
        budget: The promise.
        names: What is watched.
        before: Only days before this one count.
    """
    known = [
        exactly(state, "state", version=str, budget=(float, int), smallest=(float, int), last_day=str, detector=dict)
        for state in states
    ]
    mine = [
        of
        for of in known
        if (of["version"], of["budget"], of["smallest"]) == (version, budget.per_month, budget.smallest)
        and of["detector"].get("evidence", {}).keys() == set(names)
        and of["last_day"] < before.isoformat()
    ]
    if not mine:
        return Detector.of(names, budget)
    return Detector.from_json(max(mine, key=lambda of: of["last_day"])["detector"], names, budget)


def _states(instance: dg.DagsterInstance, model: str) -> list[object]:
    """Returns what the reports of a model left, the newest first."""
    wanted = dg.AssetRecordsFilter(asset_key=asset_key(model, STAGE))
    made = [one.asset_materialization for one in instance.fetch_materializations(wanted, limit=RECENT).records]
    return [one.metadata[STATE].value for one in made if one is not None and STATE in one.metadata]


def _keep(services: Services, project: Project, report: DriftReport, today: date) -> str:
    """Keeps the page of a report, removes those that are too old, and returns its link; empty without a row."""
    model, version = report.reference.model, report.reference.version
    drop_pages(services, model, before=today - timedelta(days=project.spec.drift.keep_days))
    if not report.windows:
        return ""
    registration = services.store.get_registration(model, version)
    return keep_page(services, registration, render_drift(report), day=report.windows[-1].begins.date())


def _checked(report: DriftReport) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=report.is_fine,
        severity=dg.AssetCheckSeverity.WARN,
        description=report.said,
        metadata={"rows": report.n_rows, "days": len(report.windows), "alarms": len(report.alarms)},
    )


def _day_metadata(report: DriftReport, window: WindowDrift, page: str) -> dict[str, Any]:
    """Returns what the partition of a day shows; the evidence after it is for the day that comes next."""
    return {
        "version": report.reference.version,
        "dagster/row_count": window.n_rows,
        "alarms": int(window.drifted),
        "columns_that_drifted": ", ".join(window.alarm.columns if window.alarm else ()) or "none",
        "schema": "; ".join(window.schema) or "as it was",
        "calibrated_on_days": window.history.n_days,
        **_calls(window.calls),
        "report": link(page) if page else "no rows, no report",
        STATE: dg.MetadataValue.json(_state(report, window.after, window.begins.date())),
        **numbers(_measures(window.found) | _together(window.together)),
        **_tracked(next((rows for rows in report.tracked if rows.day == window.begins.date()), None)),
    }


def _tracked(rows: TrackedRows | None, of: str = "") -> dict[str, Any]:
    """Returns what was expected of labelled rows, what came, and the error; nothing without labels."""
    if rows is None:
        return {}
    found: dict[str, float | None] = {f"labelled_rows{of}": rows.n_rows}
    for quality, one in rows.qualities.items():
        found[f"real_{quality.value}{of}"] = one.real
        found[f"expected_of_labelled_{quality.value}{of}"] = one.estimate.value
        found[f"estimate_error_{quality.value}{of}"] = one.error
    return dict(numbers(found))


def _altogether(report: DriftReport) -> dict[str, Any]:
    """Returns what the last day of a report shows of all its days, besides what it shows of itself."""
    return {
        "days": len(report.windows),
        "columns": dg.MetadataValue.md(markdown(report)),
        **numbers({f"expected_{quality.value}": one.value for quality, one in report.quality.items()}),
        **_tracked(report.labelled, f"_{MOST_DAYS}_days"),
        **_real(report.real),
    }


def _calls(calls: Calls | None) -> dict[str, Any]:
    """Returns how many calls came, and which share was refused for what; nothing where none was counted."""
    if calls is None or not calls.n_calls:
        return {}
    shares: dict[str, float | None] = {f"refused/{name}": share for name, share in calls.shares.items()}
    return {
        "calls": calls.n_calls,
        "refused": calls.said or "none",
        **numbers({"refused_share": calls.share, **shares}),
    }


def _measures(found: Mapping[str, Difference]) -> dict[str, float | None]:
    """Returns what alarms judge of each column, and the PSI; unseen where it is known."""
    measures: dict[str, float | None] = {}
    for name, one in found.items():
        judged = one.distance
        measures[f"psi/{name}"], measures[f"share/{name}"] = one.psi, judged.share
        measures[f"missing/{name}"], measures[f"unseen/{name}"] = judged.missing, judged.unseen
    return measures


def _real(found: RealQuality | RealErrors | None) -> dict[str, Any]:
    if found is None:
        return {}
    if isinstance(found, RealErrors):
        least, most = found.grew_by
        errors: dict[str, float | None] = {
            "error_with_labels": found.error,
            "error_of_held_out": found.before,
            "error_grew_by_at_least": least,
            "error_grew_by_at_most": most,
        }
        return {"error": found.said, **numbers(errors)}
    least, most = found.fell_by
    measures: dict[str, float | None] = {
        "accuracy_with_labels": found.accuracy,
        "accuracy_of_held_out": found.before,
        "accuracy_fell_by_at_least": least,
        "accuracy_fell_by_at_most": most,
    }
    return {"accuracy": found.said, **numbers(measures)}


def _together(found: ClassifierTest | None) -> dict[str, float | None]:
    if found is None:
        return {}
    return {"domain_classifier_auc": found.auc, "domain_classifier_p_value": found.p_value}
