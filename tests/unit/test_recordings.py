"""Of many recorded rows those of a replay are read alone: the same that would be chosen with all of them read."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.recordings import Recordings
from release_platform.domain.identity import digest_of
from release_platform.side_by_side import chosen_rows

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
COLUMNS = ["age", "city", "income"]


def rows(seed: int, *, n: int = 40, at: datetime = NOON, per_request: int = 4) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    ids = [f"r{seed}-{place // per_request:x}" for place in range(n)]
    cities = random.choice(["Bern", "Basel", None], n)
    return pd.DataFrame({"age": random.integers(1, 90, n), "city": cities, "prediction_id": ids, "at": at})


@pytest.fixture
def recordings(tmp_path: Path) -> Recordings:
    """Of one version ten files of two days, one of them with another column, and one row that is too late."""
    made = Recordings(str(tmp_path / "recordings"))
    for seed in range(8):
        made.add("churn", "3", NOON.date(), rows(seed), name=f"{seed}")
    made.add("churn", "3", date(2026, 3, 1), rows(8, at=NOON - timedelta(days=1)).assign(income=1.5), name="8")
    made.add("churn", "3", NOON.date(), rows(9, n=1, at=NOON + timedelta(hours=1)), name="9")
    return made


def period(hours: int = 48) -> dict[str, datetime]:
    return {"since": NOON - timedelta(hours=hours), "until": NOON + timedelta(hours=1)}


@pytest.mark.parametrize("most", [1, 2, 50, 359, 360, 361, 5000])
def test_what_is_chosen_is_the_same_as_of_all_rows(recordings: Recordings, most: int) -> None:
    whole = recordings.read_period("churn", "3", **period())
    found, n_recorded = recordings.read_first("churn", "3", **period(), most=most)

    assert n_recorded == len(whole) == 360
    assert min(most, 360) <= len(found) < most + 4, "and the other rows of the last request"
    assert digest_of(chosen_rows(found, COLUMNS, most)) == digest_of(chosen_rows(whole, COLUMNS, most))


@pytest.mark.parametrize("most", [1, 50, 360])
def test_they_are_the_first_by_the_digest_of_their_prediction_and_then_by_their_own(
    recordings: Recordings, most: int
) -> None:
    whole = recordings.read_period("churn", "3", **period())
    every = chosen_rows(whole, COLUMNS, len(whole))
    assert chosen_rows(whole, COLUMNS, most) == every[:most]


def test_a_period_without_a_row_gives_none(recordings: Recordings) -> None:
    early = {"since": NOON - timedelta(days=9), "until": NOON - timedelta(days=8)}
    at_night = {"since": NOON + timedelta(hours=2), "until": NOON + timedelta(hours=3)}
    for of in (early, at_night):
        found, n_recorded = recordings.read_first("churn", "3", **of, most=10)
        assert (len(found), n_recorded) == (0, 0)


def test_files_that_name_neither_predictions_nor_times_are_taken_whole(tmp_path: Path) -> None:
    made = Recordings(str(tmp_path / "recordings"))
    made.add("churn", "3", NOON.date(), rows(1)[["age", "city"]], name="a")
    found, n_recorded = made.read_first("churn", "3", **period(), most=10)

    assert (len(found), n_recorded) == (40, 40)
    whole = made.read_period("churn", "3", **period())
    assert chosen_rows(found, COLUMNS, 10) == chosen_rows(whole, COLUMNS, 10)
