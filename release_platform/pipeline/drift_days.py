"""What a drift report says of each of its days, as the release store keeps it."""

from datetime import datetime

from release_platform.domain.distances import Difference
from release_platform.domain.drift import WindowDrift
from release_platform.domain.drift_day import DriftDay
from release_platform.domain.drift_spec import OnAlarm
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER
from release_platform.domain.reference import REFUSED_CALLS
from release_platform.pipeline.drift import DriftReport


def drift_days(
    report: DriftReport, *, on_alarm: tuple[OnAlarm, ...], page: str, run_url: str, at: datetime
) -> tuple[DriftDay, ...]:
    """Returns each day of a report, in order; none without rows.

    Args:
        report: The report, over whole days.
        on_alarm: What the model's YAML asks for.
        page: Where the report is.
        run_url: The run that made it.
        at: When it was made.
    """
    return tuple(
        DriftDay(
            model=report.reference.model,
            version=report.reference.version,
            day=window.begins.date(),
            n_rows=window.n_rows,
            columns=window.alarm.columns if window.alarm else (),
            schema=window.schema,
            statistics=_statistics(window),
            on_alarm=on_alarm,
            report=page,
            run_url=run_url,
            at=at.isoformat(),
            shape=window.shape,
        )
        for window in report.windows
    )


def _statistics(window: WindowDrift) -> dict[str, dict[str, float]]:
    named = window.alarm.columns if window.alarm else ()
    found = {name: _measures(window.found[name]) for name in named if name in window.found}
    if window.calls is not None and REFUSED_CALLS in named:
        shares = {"share": window.calls.share, **window.calls.shares}
        found[REFUSED_CALLS] = {name: round(share, 6) for name, share in shares.items()}
    if window.together is not None and DOMAIN_CLASSIFIER in named:
        found[DOMAIN_CLASSIFIER] = {
            "auc": round(window.together.auc, 6),
            "p_value": round(window.together.p_value, 6),
        }
    return found


def _measures(one: Difference) -> dict[str, float]:
    judged = one.distance
    values = {
        "share": judged.share,
        "missing": judged.missing,
        "missing_before": judged.missing_before,
        "unseen": judged.unseen,
        "psi": one.psi,
        "jensen_shannon": one.jensen_shannon,
        "wasserstein": one.wasserstein,
        "p_value": one.p_value,
    }
    return {name: round(value, 6) for name, value in values.items() if value is not None}
