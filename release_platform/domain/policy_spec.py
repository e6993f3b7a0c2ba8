"""What a `defs.yaml` asks of a promotion, and how a model's versions are kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import inf
from typing import Any, ClassVar

from release_platform.domain.freeze import FreezeWindow
from release_platform.domain.identity import digest_of
from release_platform.domain.replay_spec import ReplaySpec
from release_platform.domain.spec_rules import STRICT

_TEN_YEARS_S = 3650 * 86400.0


class Tampering(StrEnum):
    """What happens to an alias or tag that was changed behind the platform's back. It is named in either case."""

    UNDO = "undo"  # it is put back to what the ledger says
    REPORT = "report"


class Selftest(StrEnum):
    """Whether a version needs the proof that its gates stop spoilt models."""

    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """What a promotion asks for, beyond passed gates, and how a model's versions are kept.

    Attributes:
        approvals: How many persons other than the requester must approve.
        approvals_expire_s: An approval older than this, in seconds, does not count; one of exactly this age does.
            None: they never expire.
        minimum_soak_s: How long a version stands in Staging before it may go on, in seconds.
        current_baseline: Whether the gates must have compared with the version that is in Production now.
        freeze: Times in which nothing is promoted.
        tampering: What happens to aliases and tags that were changed behind the platform's back.
        selftest: Whether a version is registered and promoted only with the proof that its gates stop spoilt models.
        replay: What a replay over recorded requests must show before a promotion; None: none is asked for.
        keep_versions: How many of the newest versions garbage collection keeps, whatever their age.
        keep_days: How long garbage collection keeps every version after its registration, in days.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    approvals: int = 0
    approvals_expire_s: float | None = None
    minimum_soak_s: float = 0.0
    current_baseline: bool = True
    freeze: tuple[FreezeWindow, ...] = ()
    tampering: Tampering = Tampering.UNDO
    selftest: Selftest = Selftest.OPTIONAL
    replay: ReplaySpec | None = None
    keep_versions: int = 10
    keep_days: float = 30.0

    def __post_init__(self) -> None:
        if self.approvals < 0 or not 0 <= self.minimum_soak_s <= _TEN_YEARS_S:
            raise ValueError("approvals and minimum_soak_s are 0 or more, and a soak is ten years at most")
        if self.approvals_expire_s is not None and not 0 < self.approvals_expire_s <= _TEN_YEARS_S:
            raise ValueError("approvals_expire_s is above 0 and up to ten years; leave it out for never")
        if self.keep_versions < 0 or not 0 <= self.keep_days < inf:
            raise ValueError("keep_versions and keep_days are 0 or more")

    @property
    def digest(self) -> str:
        """The digest that approvals are bound to: of what an approval is about, and of nothing else.

        It covers approvals, their expiry, soak, baseline, freeze, a required selftest and a demanded replay.
        `tampering`, `keep_versions` and `keep_days` decide nothing about a promotion, so a change of them leaves
        approvals as they are.
        """
        return digest_of(self.terms)

    @property
    def terms(self) -> dict[str, Any]:
        """What the digest is of, as a JSON value; the release store keeps it of each policy that was applied."""
        demanded: dict[str, Any] = {"selftest": self.selftest.value} if self.selftest is Selftest.REQUIRED else {}
        demanded |= {"replay": self.replay.to_json()} if self.replay is not None else {}
        return demanded | {
            "approvals": self.approvals,
            "approvals_expire_s": self.approvals_expire_s,
            "minimum_soak_s": self.minimum_soak_s,
            "current_baseline": self.current_baseline,
            "freeze": [asdict(window) for window in self.freeze],
        }

    @staticmethod
    def from_terms(terms: Mapping[str, Any]) -> "PolicySpec":
        """Returns a policy with these terms; what they do not cover is the default."""
        freeze = tuple(FreezeWindow(**window) for window in terms["freeze"])
        selftest = Selftest(terms.get("selftest", Selftest.OPTIONAL))
        replay = ReplaySpec(**terms["replay"]) if "replay" in terms else None
        return PolicySpec(**{**terms, "freeze": freeze, "selftest": selftest, "replay": replay})
