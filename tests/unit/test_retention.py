"""What garbage collection may take: nothing that is reached, nothing new, nothing young."""

from dataclasses import replace
from datetime import timedelta

import pytest

from release_platform.domain.lifecycle import Head
from release_platform.domain.policy import PromotionRequest, Registration, RequestState
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.retention import expendable, paths
from tests.unit.test_policy import NOW, REGISTRATION, REQUEST

HEAD = Head(model="m", epoch=9, staging="9", production="8", previous=("3", "5"), ever=("3", "5", "7", "8"))


def registered(*versions: int, days_ago: float = 100.0) -> list[Registration]:
    at = NOW - timedelta(days=days_ago)
    return [replace(REGISTRATION, version=str(number), registered_at=at) for number in versions]


def asked(version: str, state: RequestState = RequestState.OPEN) -> PromotionRequest:
    return replace(REQUEST, version=version, state=state)


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("8", "it is in Production"),
        ("9", "it is in Staging"),
        ("3", "it was in Production, and a plain rollback leads back to it"),
        ("7", "it was in Production, and a rollback may go back to it"),
        ("2", "request q asks for it"),
    ],
)
def test_every_version_that_must_be_kept_is_reached_by_a_path(version: str, path: str) -> None:
    assert paths(HEAD, [asked("2")])[version] == path


def test_a_closed_request_reaches_nothing() -> None:
    assert "2" not in paths(HEAD, [asked("2", RequestState.REFUSED), asked("2", RequestState.PROMOTED)])


def test_what_is_reached_is_never_expendable() -> None:
    found = expendable(registered(*range(1, 11)), paths(HEAD, []), PolicySpec(keep_versions=0, keep_days=0), NOW)
    assert [r.version for r in found] == ["1", "2", "4", "6", "10"]


@pytest.mark.parametrize(("keep", "left"), [(0, ["1", "2", "4", "6", "10"]), (1, ["1", "2", "4", "6"]), (9, ["1"])])
def test_the_newest_versions_are_kept_by_number_not_by_text(keep: int, left: list[str]) -> None:
    found = expendable(registered(*range(1, 11)), paths(HEAD, []), PolicySpec(keep_versions=keep, keep_days=0), NOW)
    assert [r.version for r in found] == left


@pytest.mark.parametrize(("seconds", "n_left"), [(-1, 0), (0, 0), (1, 1)])
def test_a_version_is_kept_up_to_its_last_day(seconds: int, n_left: int) -> None:
    (young,) = registered(1, days_ago=30)
    young = replace(young, registered_at=young.registered_at - timedelta(seconds=seconds))
    policy = PolicySpec(keep_versions=0, keep_days=30)
    assert len(expendable([young], {}, policy, NOW)) == n_left
