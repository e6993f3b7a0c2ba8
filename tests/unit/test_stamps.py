"""Who launched a run: a stamp holds for one run, job, configuration and operator, and for nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.errors import Refused
from release_platform.domain.stamps import OPERATOR_TAG, SHORTEST_SECRET, STAMP_TAG, operator_of, stamped, unstamped

SECRET = "s" * SHORTEST_SECRET
RUN = {"run_id": "r1", "job": "approve", "config": {"ops": {"a": {"config": {"request_id": "q"}}}}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda t: st.dictionaries(st.text(), t)
)


def test_a_stamp_names_who_launched_the_run() -> None:
    tags = stamped(SECRET, operator="ada", **RUN)
    assert operator_of(SECRET, tags, **RUN) == "ada"
    assert operator_of(SECRET, {**tags, "other": "tag"}, **RUN) == "ada"


@pytest.mark.parametrize(
    "other", [{"run_id": "r2"}, {"job": "rollback"}, {"config": {}}, {"config": {"ops": {"a": {"config": {}}}}}]
)
def test_a_stamp_of_another_run_is_refused(other: dict[str, object]) -> None:
    tags = stamped(SECRET, operator="ada", **RUN)
    with pytest.raises(Refused, match="'ada' was not made for this run"):
        operator_of(SECRET, tags, **{**RUN, **other})


def test_another_name_beside_a_stamp_is_refused() -> None:
    tags = stamped(SECRET, operator="ada", **RUN)
    with pytest.raises(Refused, match="'grace' was not made"):
        operator_of(SECRET, {**tags, OPERATOR_TAG: "grace"}, **RUN)


@pytest.mark.parametrize("stamp", ["0" * 64, "x", "\udc80", "é", "a" * 100_000])
def test_a_made_up_stamp_is_refused(stamp: str) -> None:
    with pytest.raises(Refused, match="forged"):
        operator_of(SECRET, {OPERATOR_TAG: "ada", STAMP_TAG: stamp}, **RUN)


def test_a_stamp_by_another_secret_is_refused() -> None:
    with pytest.raises(Refused, match="forged"):
        operator_of(SECRET, stamped("t" * SHORTEST_SECRET, operator="ada", **RUN), **RUN)


@pytest.mark.parametrize("tags", [{}, {OPERATOR_TAG: "", STAMP_TAG: ""}, {OPERATOR_TAG: "ada"}, {STAMP_TAG: "0" * 64}])
def test_a_run_without_a_stamp_is_nobodys(tags: dict[str, str]) -> None:
    with pytest.raises(Refused, match="nobody who signed in") as caught:
        operator_of(SECRET, tags, **RUN)
    assert "RELEASE_API_URL" in caught.value.remedy


def test_what_a_client_wrote_is_covered_and_nothing_else() -> None:
    assert unstamped({STAMP_TAG: "x", OPERATOR_TAG: "ada", "team": "risk"}) == {STAMP_TAG: "", OPERATOR_TAG: ""}
    assert unstamped({"team": "risk"}) == {}


@pytest.mark.parametrize("secret", ["", "s" * (SHORTEST_SECRET - 1)])
def test_a_secret_that_could_be_guessed_stamps_and_proves_nothing(secret: str) -> None:
    with pytest.raises(Refused, match="RELEASE_STAMP_SECRET"):
        stamped(secret, operator="ada", **RUN)
    with pytest.raises(Refused, match="RELEASE_STAMP_SECRET"):
        operator_of(secret, stamped(SECRET, operator="ada", **RUN), **RUN)


@given(JSON, st.text(min_size=1))
def test_whatever_a_client_writes_into_a_configuration_can_be_stamped(config: object, operator: str) -> None:
    run = {**RUN, "config": config}
    assert operator_of(SECRET, stamped(SECRET, operator=operator, **run), **run) == operator
