"""What a `defs.yaml` says of drift: what alarms promise, what follows, and how long recorded requests are kept."""

import re
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from math import inf
from typing import Any, ClassVar

from release_platform.domain.alarms import SMALLEST, Budget
from release_platform.domain.real_quality import QUALITY_MARGIN
from release_platform.domain.spec_rules import STRICT


class OnAlarm(StrEnum):
    """What follows when a day drifted."""

    NOTIFY = "notify"  # a message
    HOLD = "hold"  # no promotion while the alarm stands
    RETRAIN = "retrain"  # the release pipeline, up to Staging
    ROLL_BACK = "roll_back"  # through the rollback policy


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSpec:
    """How recorded requests are held against the training data.

    Attributes:
        budget: False alarms in 30 days, on average, at most; above 0.
        smallest: The smallest share of rows that matters, 0 and up, below 1.
        quality_margin: By which share of the rows answers may be wrong more often than on held-out rows, 0 and up,
            below 1.
        since_days: How far back the command looks when it is not told, in days, 1 to 366.
        keep_days: How many days recorded requests are kept; 32 and up, what a report may need.
        on_alarm: What follows when a day drifted.
        first_day: The first day of which Dagster shows a partition, `YYYY-MM-DD`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    budget: float = 1.0
    smallest: float = SMALLEST
    quality_margin: float = QUALITY_MARGIN
    since_days: int = 7
    keep_days: int = 35
    on_alarm: tuple[OnAlarm, ...] = (OnAlarm.NOTIFY,)
    first_day: str = "2026-01-01"

    def __post_init__(self) -> None:
        if not 0 < self.budget < inf or not 0 <= self.smallest < 1:
            raise ValueError("budget is above 0, and smallest a share from 0 up, below 1")
        if not 0 <= self.quality_margin < 1:
            raise ValueError("quality_margin is a share from 0 up, below 1")
        if not 1 <= self.since_days <= 366:
            raise ValueError("since_days is 1 to 366")
        if not 32 <= self.keep_days <= 3650:
            raise ValueError("keep_days is 32 to 3650")
        if len(set(self.on_alarm)) != len(self.on_alarm):
            raise ValueError(f"on_alarm names something twice: {', '.join(self.on_alarm)}")
        if re.fullmatch(r"\d{4}-\d\d-\d\d", self.first_day) is None:
            raise ValueError(f"first_day '{self.first_day}' is not a day like 2026-01-01; quote it")
        date.fromisoformat(self.first_day)

    def promise(self, *, budget: float | None = None, smallest: float | None = None) -> Budget:
        """Returns what alarms promise; what is given goes before what the YAML says."""
        return Budget(
            per_month=self.budget if budget is None else budget,
            smallest=self.smallest if smallest is None else smallest,
        )
