"""What a `defs.yaml` says of a gate: one rule over one metric."""

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any, ClassVar

from release_platform.domain.metrics import METRICS
from release_platform.domain.spec_rules import NAME, STRICT, suggestion


class Against(StrEnum):
    """What a relative gate compares with."""

    PRODUCTION = "production"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """One rule over one metric.

    Attributes:
        name: Name of the gate and of its asset check.
        metric: A name of `domain.metrics.METRICS`.
        minimum: Smallest value that passes.
        maximum: Largest value that passes.
        against: Compare with Production instead of a fixed limit.
        margin: How much worse than Production is still accepted, in the metric's unit, 0 and up.
        confidence: Confidence of the one-sided comparison, above 0.5, up to 0.995.
        slice: Judge each value of this slice column; the worst decides.
        minimum_rows: Slices with fewer held-out rows are named but do not decide.
        blocking: Whether the gate stops the release, or is advisory.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    name: str
    metric: str
    minimum: float | None = None
    maximum: float | None = None
    against: Against | None = None
    margin: float = 0.0
    confidence: float = 0.95
    slice: str | None = None
    minimum_rows: int = 100
    blocking: bool = True

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"the gate's name '{self.name}' is not lower-case letters, digits and underscores")
        if self.metric not in METRICS:
            raise ValueError(
                f"gate '{self.name}': unknown metric '{self.metric}'; {suggestion(self.metric, list(METRICS))}"
            )
        for name in ("minimum", "maximum", "margin"):
            limit = getattr(self, name)
            if limit is not None and not isfinite(limit):
                raise ValueError(f"gate '{self.name}': {name} is {limit}, not a number to hold something to")
        bounds = (self.minimum is not None) + (self.maximum is not None)
        if self.against is None and bounds == 0:
            raise ValueError(f"gate '{self.name}' has no limit: give minimum, maximum, or `against: production`")
        if self.against is not None and bounds:
            raise ValueError(f"gate '{self.name}': `against` takes a margin, not a minimum or maximum")
        if self.against is not None and (self.slice is not None or not METRICS[self.metric].quality):
            raise ValueError(f"gate '{self.name}': `against` is for quality metrics over all held-out rows")
        if self.slice is not None and not METRICS[self.metric].quality:
            raise ValueError(f"gate '{self.name}': '{self.metric}' has no slices")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"gate '{self.name}': minimum {self.minimum} is above maximum {self.maximum}")
        if self.margin < 0 or not 0.5 < self.confidence <= 0.995:
            raise ValueError(f"gate '{self.name}': margin is 0 or more, confidence above 0.5 and up to 0.995")

    @property
    def described(self) -> str:
        """The rule in words."""
        of = f" for each {self.slice}" if self.slice else ""
        if self.against is not None:
            return f"no worse than Production by more than {self.margin:g}, at {self.confidence:.0%} confidence"
        bounds = [f"at least {self.minimum:g}" if self.minimum is not None else ""]
        bounds += [f"at most {self.maximum:g}" if self.maximum is not None else ""]
        return " and ".join(bound for bound in bounds if bound) + of
