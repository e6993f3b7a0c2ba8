"""Which versions nothing may remove, by which path each is reached, and which garbage collection may take."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from release_platform.domain.lifecycle import Head
from release_platform.domain.policy import PromotionRequest, Registration, RequestState
from release_platform.domain.policy_spec import PolicySpec


def paths(head: Head, requests: Iterable[PromotionRequest]) -> dict[str, str]:
    """Returns, of each version that must be kept, what reaches it; the first of several ways.

    Args:
        head: Where the versions of a model stand.
        requests: The model's promotion requests; only open ones reach anything.
    """
    found: dict[str, str] = {}
    if head.production is not None:
        found[head.production] = "it is in Production"
    if head.staging is not None:
        found.setdefault(head.staging, "it is in Staging")
    for share, route in ((head.canary, "canary"), (head.shadow, "shadow")):
        if share is not None:
            found.setdefault(share.version, f"it is {route} beside the version in Production")
    for version in head.previous:
        found.setdefault(version, "it was in Production, and a plain rollback leads back to it")
    for version in head.ever:
        found.setdefault(version, "it was in Production, and a rollback may go back to it")
    for request in requests:
        if request.state is RequestState.OPEN:
            found.setdefault(request.version, f"request {request.request_id} asks for it")
    return found


def expendable(
    present: Sequence[Registration], reached: Mapping[str, str], policy: PolicySpec, now: datetime
) -> tuple[Registration, ...]:
    """Returns the versions that the policy does not keep either, oldest first.

    Args:
        present: The versions that were not removed yet.
        reached: The versions that must be kept.
        policy: Keeps its newest `keep_versions`, and every one up to `keep_days` after its registration.
        now: The present moment.
    """
    newest = sorted(present, key=lambda registration: int(registration.version), reverse=True)
    old = (registration for registration in newest[policy.keep_versions :] if registration.version not in reached)
    since = now - timedelta(days=policy.keep_days)
    return tuple(sorted((r for r in old if r.registered_at < since), key=lambda r: int(r.version)))
