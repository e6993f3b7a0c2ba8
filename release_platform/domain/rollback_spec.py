"""What a `defs.yaml` says of when a version in Production is taken back by itself; `rollback` judges it."""

from dataclasses import dataclass
from typing import Any, ClassVar

from release_platform.domain.spec_rules import STRICT
from release_platform.domain.strategy import LiveGateSpec, LiveMetric

_MONTH_S = 30 * 86400.0
_FEWEST, _MOST = 5, 1440
_MOST_VERIFICATIONS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackSpec:
    """When a version in Production is taken back by itself.

    Attributes:
        gates: The rules, against the record of the version before; an advisory one never decides.
        record_minutes: How many minutes with requests the record has, 5 to 1440.
        watch_s: How long after its promotion a version is watched, above 0, up to 30 days.
        hold_off_s: So long after the policy rolled back it does not do it again, 0 and up, up to 30 days.
        failed_verifications: So many verifications of the live servers in a row that failed take a version back,
            0 to 10; 0: none do.
        false_rollback: Largest probability that a version which is worse in no gate is taken back; above 0, up to 0.1.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    gates: tuple[LiveGateSpec, ...] = (
        LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.02),
        LiveGateSpec(metric=LiveMetric.LATENCY, margin=0.2),
    )
    record_minutes: int = 60
    watch_s: float = 7 * 86400.0
    hold_off_s: float = 3600.0
    failed_verifications: int = 2
    false_rollback: float = 0.001

    def __post_init__(self) -> None:
        names = [gate.name for gate in self.gates]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two rollback gates judge '{min(twice)}'; keep one")
        if any(gate.metric is LiveMetric.DISAGREEMENT for gate in self.gates):
            raise ValueError("a version in Production has no pairs: disagreement is for a shadow")
        if not any(gate.blocking for gate in self.gates) and not self.failed_verifications:
            raise ValueError("no blocking rollback gate; add one, e.g. errors, or leave rollback_policy out")
        if not _FEWEST <= self.record_minutes <= _MOST:
            raise ValueError(f"record_minutes is {_FEWEST} to {_MOST}")
        if not (0 < self.watch_s <= _MONTH_S and 0 <= self.hold_off_s <= _MONTH_S):
            raise ValueError("watch_s is above 0, hold_off_s 0 or more, and both 30 days at most")
        if not 0 <= self.failed_verifications <= _MOST_VERIFICATIONS:
            raise ValueError(f"failed_verifications is 0 to {_MOST_VERIFICATIONS}; 0: none takes a version back")
        if not 0 < self.false_rollback <= 0.1:
            raise ValueError("false_rollback is a probability above 0 and up to 0.1")
