"""A day's files become one: nothing is lost, nothing counts twice, whenever it is interrupted."""

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from release_platform.adapters.recordings import Recordings

DAY, NEXT = date(2026, 3, 1), date(2026, 3, 2)
OF = ("orders", "1")


def rows(*numbers: int) -> pd.DataFrame:
    at = pd.Timestamp(DAY, tz=UTC)
    return pd.DataFrame({"x": numbers, "prediction_id": [f"a-{n:x}" for n in numbers], "at": [at] * len(numbers)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "orders" / "1" / DAY.isoformat()


@pytest.fixture
def kept(tmp_path: Path) -> Recordings:
    found = Recordings(str(tmp_path))
    for minute in range(3):
        found.add(*OF, DAY, rows(minute), name=f"{minute}-a")
    found.add(*OF, NEXT, rows(7), name="9-a")
    return found


def numbers(kept: Recordings, *days: date) -> list[int]:
    return sorted(kept.read(*OF, days)["x"].tolist())


def test_the_files_of_a_day_are_one_with_all_rows(kept: Recordings, folder: Path) -> None:
    assert kept.join_day(*OF, DAY) == 3

    assert [file.name for file in folder.iterdir()] == ["day.parquet"]
    assert numbers(kept, DAY, NEXT) == [0, 1, 2, 7]
    assert kept.days(*OF) == (DAY, NEXT)
    assert kept.join_day(*OF, DAY) == 0


def test_days_that_are_not_joined_are_known(kept: Recordings) -> None:
    assert kept.loose_days("orders", before=NEXT) == (("1", DAY),)
    kept.join_day(*OF, DAY)
    assert kept.loose_days("orders", before=NEXT) == ()
    assert kept.loose_days("nothing", before=NEXT) == ()


def test_after_a_crash_before_the_files_were_removed_no_row_counts_twice(
    kept: Recordings, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "before")
    kept.join_day(*OF, DAY)
    for file in (tmp_path / "before").iterdir():
        shutil.copy(file, folder)  # the last of them were there still

    assert numbers(kept, DAY) == [0, 1, 2]
    assert kept.join_day(*OF, DAY) == 3
    assert [file.name for file in folder.iterdir()] == ["day.parquet"]
    assert numbers(kept, DAY) == [0, 1, 2]


def test_a_minute_that_is_fetched_again_is_kept_once_though_its_day_is_joined(kept: Recordings) -> None:
    kept.join_day(*OF, DAY)

    assert not kept.add_new(*OF, DAY, rows(1), name="1-a")
    assert kept.add_new(*OF, DAY, rows(4), name="4-a")
    assert numbers(kept, DAY) == [0, 1, 2, 4]
    assert kept.join_day(*OF, DAY) == 1
    assert numbers(kept, DAY) == [0, 1, 2, 4]
    assert not kept.add_new(*OF, DAY, rows(4), name="4-a")


def test_columns_that_some_files_lack_are_missing_there(kept: Recordings) -> None:
    kept.add(*OF, DAY, rows(5).assign(probability=0.5), name="5-a")
    kept.join_day(*OF, DAY)

    assert kept.read(*OF, [DAY])["probability"].notna().sum() == 1


def test_each_day_comes_by_itself_and_periods_as_before(kept: Recordings) -> None:
    kept.join_day(*OF, DAY)

    assert [(day, len(found)) for day, found in kept.each_day(*OF, since=DAY, until=NEXT)] == [(DAY, 3)]
    assert [day for day, _ in kept.each_day(*OF, since=DAY, until=date.max)] == [DAY, NEXT]
    begins = datetime(2026, 3, 1, tzinfo=UTC)
    assert len(kept.read_period(*OF, since=begins, until=datetime(2026, 3, 1, 1, tzinfo=UTC))) == 3


def test_what_is_too_old_goes_joined_or_not(kept: Recordings) -> None:
    kept.join_day(*OF, DAY)

    assert kept.drop_before("orders", NEXT) == 1
    assert kept.days(*OF) == (NEXT,)
