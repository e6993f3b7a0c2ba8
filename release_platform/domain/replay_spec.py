"""What a `defs.yaml` demands of a replay: a candidate over recorded requests, before it may be promoted."""

from dataclasses import asdict, dataclass
from math import inf
from typing import Any, ClassVar

from release_platform.domain.spec_rules import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySpec:
    """The limits that a replay is held to.

    Attributes:
        max_refused_share: Share of the rows that the Production version answers and the candidate may refuse, 0 to 1.
        max_flip_share: Share of the rows that both answer whose answers may differ, 0 to 1.
        max_slice_flip_share: The same within each slice, 0 to 1; None for three times `max_flip_share`, 1 at most.
        minimum_slice_rows: Rows that both answer which a slice must have to be judged, 1 and up.
        max_latency_ratio: How many times the Production version's 95th percentile of a row's time the candidate's may
            be; above 0.
        minimum_rows: Rows that the Production version must answer; with fewer no verdict is `passed`. 1 and up.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    max_refused_share: float = 0.0
    max_flip_share: float = 0.1
    max_slice_flip_share: float | None = None
    minimum_slice_rows: int = 50
    max_latency_ratio: float = 2.0
    minimum_rows: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.max_refused_share <= 1 or not 0 <= self.max_flip_share <= 1:
            raise ValueError("max_refused_share and max_flip_share are shares, 0 to 1")
        if self.max_slice_flip_share is not None and not 0 <= self.max_slice_flip_share <= 1:
            raise ValueError("max_slice_flip_share is a share, 0 to 1")
        if self.minimum_slice_rows < 1:
            raise ValueError("minimum_slice_rows is 1 or more")
        if not 0 < self.max_latency_ratio < inf:
            raise ValueError("max_latency_ratio is above 0")
        if self.minimum_rows < 1:
            raise ValueError("minimum_rows is 1 or more")

    @property
    def slice_limit(self) -> float:
        """The share of a slice's answers that may differ, 0 to 1."""
        return min(1.0, 3 * self.max_flip_share) if self.max_slice_flip_share is None else self.max_slice_flip_share

    def to_json(self) -> dict[str, Any]:
        """Returns the limits as a JSON value."""
        return asdict(self)
