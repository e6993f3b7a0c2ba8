"""What a `defs.yaml` says of how old an asset of a model may become."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from release_platform.domain.spec_rules import STRICT

_TEN_YEARS_S = 3650 * 86400.0


class Aging(StrEnum):
    """The assets of a model that become old."""

    RAW_DATA = "raw_data"
    REGISTERED_VERSION = "registered_version"
    PRODUCTION_VERSION = "production_version"
    DRIFT_REPORT = "drift_report"
    BATCH_SCORES = "batch_scores"


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessSpec:
    """How long after it was last made an asset counts as fresh.

    Attributes:
        fail_s: Older than this, in seconds, is a failure; 60 and up.
        warn_s: Older than this is a warning; 60 and up, below `fail_s`; None: there is no warning.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    fail_s: float
    warn_s: float | None = None

    def __post_init__(self) -> None:
        if not 60 <= self.fail_s <= _TEN_YEARS_S:
            raise ValueError("fail_s is 60 or more, and ten years at most")
        if self.warn_s is not None and not 60 <= self.warn_s < self.fail_s:
            raise ValueError("warn_s is 60 or more, and below fail_s")
