"""What a `defs.yaml` says of runs of the release pipeline that nobody starts by hand; `retraining` decides."""

from dataclasses import dataclass
from typing import Any, ClassVar

from release_platform.domain.spec_rules import STRICT

_MONTH_S = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainSpec:
    """When the release pipeline starts by itself, up to Staging, and how often at most.

    Attributes:
        new_data: Whether the source is looked at, and new data starts it.
        look_every_s: How often the source is read for that, in seconds, 60 to 30 days.
        minimum_interval_s: Seconds from one start to the next at least, 0 to 30 days.
        most_per_day: Starts in any 24 hours at most, 1 to 24.
        stop_after: So many of its runs in a row that did not reach Staging end it, until a person starts one; 1 to 20.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    new_data: bool = False
    look_every_s: float = 3600.0
    minimum_interval_s: float = 86400.0
    most_per_day: int = 1
    stop_after: int = 3

    def __post_init__(self) -> None:
        if not 60 <= self.look_every_s <= _MONTH_S or not 0 <= self.minimum_interval_s <= _MONTH_S:
            raise ValueError("look_every_s is 60 or more, minimum_interval_s 0 or more, and both 30 days at most")
        if not 1 <= self.most_per_day <= 24 or not 1 <= self.stop_after <= 20:
            raise ValueError("most_per_day is 1 to 24, and stop_after 1 to 20")
