"""What the operators' API takes and answers."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from release_platform.domain.asked_rollout import AskedRollout
from release_platform.domain.strategy import Strategy

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Asking(_Body):
    """A promotion request. Who asks is the name of the key."""

    reason: Reason = Field(description="Why; it is kept in the ledger for good.", examples=["better recall, reviewed"])
    version: Version | None = Field(None, description="The version; without it the one in Staging.", examples=["3"])
    strategy: Annotated[Strategy | None, Field(strict=False)] = Field(
        None, description="How it gets its traffic; without it as the model's YAML says.", examples=["canary"]
    )
    rollout: AskedRollout | None = Field(
        None,
        description="Steps, shadow, bake time and gates, as `rollout` of a defs.yaml has them, in the place of the "
        "model's own; never less than those demand.",
        examples=[{"canary": [{"weight": 0.05, "minimum_requests": 2000, "minimum_s": 600}]}],
    )


class Ordering(_Body):
    """An order to a rollout. Who orders is the name of the key."""

    reason: Reason = Field(description="Why; it is kept in the ledger for good.", examples=["the phones ring"])


class Approving(_Body):
    """An approval. Who approves is the name of the key; not the one who asked."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000)] = Field(
        "", description="What was looked at.", examples=["read the report, slices are fine"]
    )


class Cancelling(_Body):
    """A cancellation. Who cancels is the name of the key."""

    reason: Reason = Field(description="Why.", examples=["asked for the wrong version"])


class Lifting(_Body):
    """The lifting of a hold by a drift alarm. Who lifts it is the name of the key."""

    reason: Reason = Field(description="Why.", examples=["the new clients are known; the candidate was tried on them"])


class RollingBack(_Body):
    """A rollback. Who rolls back is the name of the key."""

    reason: Reason = Field(description="Why; it is kept in the ledger for good.", examples=["error rate doubled"])
    to: Version | None = Field(None, description="A former Production version; without it the previous one.")


class Drilling(_Body):
    """A drill of the rollback. Who drills is the name of the key."""

    reason: Reason = Field("does a rollback work?", description="Why; it is kept in the ledger for good.")


class DrillState(StrEnum):
    """Where a drill stands that was asked for."""

    UNDER_WAY = "under_way"
    ENDED = "ended"
    STOPPED = "stopped"


class DrillAnswer(BaseModel):
    """A drill that was asked for."""

    drill_id: str
    model: str
    state: DrillState
    drill: dict[str, Any] | None = Field(
        description="Once it has ended: what it showed; where one was cut off before, what came of that one instead."
    )
    problem: dict[str, str] | None = Field(
        description="Once it was stopped: why, and what to do next, as `type`, `detail` and `remedy`."
    )


class Who(BaseModel):
    """Whose key a request came with."""

    name: str
    key_id: str
    scopes: list[str]
    expires_at: str | None


class ApprovalAnswer(BaseModel):
    """An approval, and whether it counts."""

    actor: str
    reason: str
    standing: str
    valid_until: str | None
    said: str


class RequestAnswer(BaseModel):
    """A promotion request, and of an open one what is missing."""

    request_id: str
    model: str
    version: str
    actor: str
    reason: str
    requested_at: str
    state: str
    outcome: str
    strategy: str | None = Field(description="The strategy that it asks for; none: that of the model's YAML.")
    asked: dict[str, Any] | None = Field(description="What else it says of its rollout; none: as in the model's YAML.")
    rollout: str | None = Field(description="Where its rollout stands; none: it has no rollout.")
    missing: list[str]
    approvals: list[ApprovalAnswer]


class ModelAnswer(BaseModel):
    """A model and where its versions stand."""

    model: str
    task: str
    owner: str
    staging: str | None
    production: str | None
    description: str
