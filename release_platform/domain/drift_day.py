"""What a drift report said of one day, and what follows from it: a message, a hold, a retraining, a rollback.

An alarm *stands* while its day is the last one that was reported of the version, and no person lifted it. So the next
day without an alarm ends it, and so does another version in Production, of which other days are reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from release_platform.domain.drift_spec import OnAlarm
from release_platform.domain.history import DayShape
from release_platform.domain.json_form import exactly

FORMAT = 1
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """A person's word that an alarm need not hold anything up.

    Attributes:
        actor: Who said so.
        reason: Why.
        at: When: ISO 8601, UTC.
    """

    actor: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDay:
    """What a report said of one day of a version.

    Attributes:
        model: The model's name.
        version: The version that answered.
        day: The day, in UTC.
        n_rows: The recorded rows of it; 0 where all calls were refused.
        columns: The columns that alarmed, those with most evidence first.
        schema: What is wrong with the columns, in a sentence each.
        statistics: Of each column that alarmed its measures, by name.
        on_alarm: What the model's YAML asked for when the report was made.
        report: Where the report is.
        run_url: The run that made it.
        at: When the report was made: ISO 8601, UTC.
        lift: Who lifted the alarm; None for nobody.
        shape: What later days learn from it; None for a day that was reported before days were learned from.
    """

    model: str
    version: str
    day: date
    n_rows: int
    columns: tuple[str, ...]
    schema: tuple[str, ...]
    statistics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    on_alarm: tuple[OnAlarm, ...] = ()
    report: str = ""
    run_url: str = ""
    at: str = ""
    lift: Lift | None = None
    shape: DayShape | None = None

    @property
    def alarmed(self) -> bool:
        """Whether the day drifted."""
        return bool(self.columns or self.schema)

    @property
    def stands(self) -> bool:
        """Whether it drifted and nobody lifted it; of the last day that was reported."""
        return self.alarmed and self.lift is None

    def asks_for(self, what: OnAlarm) -> bool:
        """Returns whether the alarm stands, and something is to follow from it."""
        return self.stands and what in self.on_alarm

    @property
    def said(self) -> str:
        """What drifted, in a sentence."""
        if not self.alarmed:
            return f"no drift on {self.day} in {self.n_rows:,} rows of version {self.version}"
        named = [*self.schema, *self.columns]
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        return (
            f"drift on {self.day} in {self.n_rows:,} rows of version {self.version}: {', '.join(named[:_SHOWN])}{more}"
        )

    @property
    def hold(self) -> str:
        """Why promotions of the model are held, and what to do next; empty while nothing holds them."""
        if not self.asks_for(OnAlarm.HOLD):
            return ""
        return (
            f"{self.said}; this holds promotions until a day is reported without an alarm: read {self.report}, then "
            f"`release lift-hold {self.model}` if it must not wait"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value, without who lifted it."""
        kept = {name: getattr(self, name) for name in _FIELDS if name != "format"}
        if self.shape is not None:
            kept["shape"] = self.shape.to_json()
        lists = {name: list(kept[name]) for name in ("columns", "schema")}
        asked = [what.value for what in self.on_alarm]
        statistics = {name: dict(of) for name, of in self.statistics.items()}
        return {
            "format": FORMAT,
            **kept,
            **lists,
            "statistics": statistics,
            "on_alarm": asked,
            "day": self.day.isoformat(),
        }

    @staticmethod
    def from_json(value: object, lift: Lift | None = None) -> "DriftDay":
        """Returns what `to_json` wrote.

        Raises:
            ValueError: It is no such day; so does KeyError.
        """
        shape = {"shape": dict} if isinstance(value, dict) and "shape" in value else {}
        of = dict(exactly(value, "day of drift", **_FIELDS, **shape))
        if of.pop("format") != FORMAT:
            raise ValueError(f"only days of format {FORMAT} can be read")
        return DriftDay(
            **{
                **of,
                "day": date.fromisoformat(of["day"]),
                "columns": tuple(of["columns"]),
                "schema": tuple(of["schema"]),
                "on_alarm": tuple(OnAlarm(what) for what in of["on_alarm"]),
                "shape": DayShape.from_json(of["shape"], of["version"]) if shape else None,
            },
            lift=lift,
        )


_FIELDS: dict[str, type] = {
    "format": int,
    "model": str,
    "version": str,
    "day": str,
    "n_rows": int,
    "columns": list,
    "schema": list,
    "statistics": dict,
    "on_alarm": list,
    "report": str,
    "run_url": str,
    "at": str,
}
