"""A month of the raw data is a partition as soon as it is over, for Dagster and for everything else alike."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from release_platform.defs.data import monthly
from release_platform.domain.data_spec import PartitionSpec
from release_platform.domain.errors import Refused
from release_platform.project import Project
from tests.fakes.clock import FakeClock
from tests.unit.test_ingest import spec

END_OF_YEAR = datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)
OPEN = PartitionSpec(column="at", start="2025-11")
CLOSED = PartitionSpec(column="at", start="2025-11", end="2025-12")


@pytest.mark.parametrize("months", [OPEN, CLOSED])
def test_dagster_and_the_platform_know_the_same_months_at_every_moment(months: PartitionSpec) -> None:
    clock, seen = FakeClock(datetime(2025, 10, 31, 12, tzinfo=UTC)), set[tuple[str, ...]]()
    while clock.now() < datetime(2026, 4, 1, tzinfo=UTC):
        keys = months.keys_at(clock.now())
        assert list(keys) == monthly(months).get_partition_keys(current_time=clock.now()), clock.now()
        seen.add(keys)
        clock.pass_s(6 * 3600)
    assert len(seen) == (5 if months is OPEN else 3), "none, then one more as each ends"


def test_a_month_is_one_from_the_moment_on_at_which_it_is_over_in_utc() -> None:
    clock = FakeClock(END_OF_YEAR)
    assert OPEN.keys_at(clock.now()) == ("2025-11",)
    clock.pass_s(1)
    assert OPEN.keys_at(clock.now()) == ("2025-11", "2025-12")
    assert OPEN.keys_at(clock.now().astimezone(ZoneInfo("America/New_York"))) == ("2025-11", "2025-12")
    assert CLOSED.keys_at(clock.now() + timedelta(days=400)) == ("2025-11", "2025-12")


def test_only_months_that_are_over_can_be_named() -> None:
    project = Project(spec=spec(partitions=OPEN), folder=Path())
    assert project.months(None, END_OF_YEAR) == ("2025-11",)
    with pytest.raises(Refused, match="has no partition '2025-12'") as refused:
        project.months("2025-11:2025-12", END_OF_YEAR)
    assert refused.value.remedy == "choose from 2025-11 to 2025-11"
    with pytest.raises(Refused, match="no month of its partitions is over yet, the first is 2025-11"):
        project.months(None, datetime(2025, 11, 30, tzinfo=UTC))
