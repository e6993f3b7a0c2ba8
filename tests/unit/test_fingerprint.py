"""The fingerprint separates all data that differs, and says where; equal data has one fingerprint."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.fingerprint import BLOCK_ROWS, Fingerprint, combined, differences, fingerprint
from release_platform.pipeline.ingest import columns_of

N_ROWS = 150_000


def of(values: Any, **more: Any) -> Fingerprint:
    frame = pd.DataFrame({"x": values, **more})
    return fingerprint(columns_of(frame), n_rows=len(frame))


def base() -> npt.NDArray[np.float64]:
    return np.arange(N_ROWS, dtype=np.float64)


def changed(values: Any, row: int, value: Any) -> Any:
    copy = values.copy()
    copy[row] = value
    return copy


FLAGS = np.arange(N_ROWS) % 2 == 0
TIMES = pd.Series(pd.date_range("2020-01-01", periods=N_ROWS, freq="s").to_numpy())
WORDS = pd.Series([f"w{i % 100}" for i in range(N_ROWS)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(base(), changed(base(), 100_001, -1.0), id="one number after row 100,000"),
        pytest.param(base(), changed(base(), N_ROWS - 1, np.nan), id="the last number goes missing"),
        pytest.param(FLAGS, changed(FLAGS, 120_000, not FLAGS[120_000]), id="one flag"),
        pytest.param(TIMES, changed(TIMES, 120_000, pd.Timestamp("2019-01-01")), id="one time"),
        pytest.param(TIMES, changed(TIMES, 120_000, pd.NaT), id="one time goes missing"),
        pytest.param(WORDS, changed(WORDS, 120_000, "w"), id="one text"),
        pytest.param(np.arange(9, dtype="int32"), np.arange(9, dtype="int64"), id="int32 and int64"),
        pytest.param(np.arange(9.0), np.arange(9), id="float and integer"),
        pytest.param(np.array([0, 1]), np.array([False, True]), id="integers and flags"),
        pytest.param(np.array([1, 2]), np.array(["1", "2"]), id="numbers and their text"),
        pytest.param([0.0], [-0.0], id="zero and minus zero"),
        pytest.param(["", "a"], [None, "a"], id="no text and missing"),
        pytest.param(["a", None, "b"], ["a", "b", None], id="where text is missing"),
        pytest.param(["ab", "c"], ["a", "bc"], id="where texts meet"),
        pytest.param(["a", None], ["a", "None"], id="missing and the word None"),
        pytest.param([1.0, 2.0], [2.0, 1.0], id="order of rows"),
        pytest.param(["a", "b"], ["b", "a"], id="order of texts"),
        pytest.param(
            pd.to_datetime(["2020-01-01"]), pd.to_datetime(["2020-01-01"]).tz_localize("UTC"), id="no zone and UTC"
        ),
        pytest.param(
            pd.to_datetime(["2020-01-01"]).tz_localize("UTC"),
            pd.to_datetime(["2020-01-01"]).tz_localize("UTC").tz_convert("Europe/Vienna"),
            id="zones of one instant",
        ),
        pytest.param(
            pd.Categorical(["a", "b"], categories=["a", "b"]),
            pd.Categorical(["a", "b"], categories=["b", "a"]),
            id="order of categories",
        ),
        pytest.param(
            pd.Categorical(["a"], categories=["a"]), pd.Categorical(["a"], categories=["a", "b"]), id="unused category"
        ),
        pytest.param(
            pd.Categorical(["a"], categories=["a", "b"], ordered=True),
            pd.Categorical(["a"], categories=["a", "b"]),
            id="ordered categories",
        ),
        pytest.param(pd.array([1, None], dtype="Int64"), pd.array([1, 0], dtype="Int64"), id="missing and zero"),
        pytest.param(
            pd.array([True, None], dtype="boolean"), pd.array([True, False], dtype="boolean"), id="missing flag"
        ),
        pytest.param([1.0, 2.0], [1.0], id="number of rows"),
    ],
)
def test_data_that_differs_has_another_fingerprint(one: Any, other: Any) -> None:
    assert of(one).digest != of(other).digest
    assert differences(of(one), of(other))
    assert differences(of(one), of(one)) == ()


def test_all_missing_numbers_are_equal_whatever_their_bits() -> None:
    quiet, payload = np.array([1.0, np.nan]), np.array([1.0, np.nan])
    payload.view(np.uint64)[1] |= 12_345
    assert np.isnan(payload[1])
    assert of(quiet).digest == of(payload).digest


def test_what_lies_beneath_a_missing_value_does_not_count() -> None:
    one = pd.arrays.IntegerArray(np.array([1, 7]), np.array([False, True]))
    other = pd.arrays.IntegerArray(np.array([1, 8]), np.array([False, True]))
    assert of(one).digest == of(other).digest


def test_names_and_the_order_of_columns_count() -> None:
    frame = pd.DataFrame({"a": [1], "b": [1]})
    one = fingerprint(columns_of(frame), n_rows=1)
    turned = fingerprint(columns_of(frame[["b", "a"]]), n_rows=1)
    renamed = fingerprint(columns_of(frame.rename(columns={"a": "c"})), n_rows=1)
    assert len({one.digest, turned.digest, renamed.digest}) == 3
    assert differences(one, turned) == ("the columns are in another order",)
    assert differences(one, renamed) == ("column 'a' is gone", "column 'c' is new")


def test_the_same_rows_in_other_memory_have_the_same_fingerprint() -> None:
    frame = pd.DataFrame({"x": base(), "t": TIMES, "w": WORDS.astype("string[pyarrow]"), "f": FLAGS})
    part = frame[70_000:70_100]
    copy = pd.DataFrame({name: part[name].to_numpy() for name in ("x", "t")})
    copy["w"] = pd.array(list(part["w"]), dtype="string[pyarrow]")
    copy["f"] = list(part["f"])
    joined = pd.concat([part[:3], part[3:]])
    prints = [fingerprint(columns_of(f), n_rows=100) for f in (part, copy, joined)]
    assert len({found.digest for found in prints}) == 1


STORAGES: tuple[Literal["python", "pyarrow"], ...] = ("python", "pyarrow")


def test_text_counts_the_same_in_every_storage() -> None:
    texts = ["a", None, "ü"]
    found = {of(pd.Series(texts, dtype=pd.StringDtype(storage))).digest for storage in STORAGES}
    assert len(found) == 1


def test_a_difference_names_the_block_of_rows() -> None:
    found = differences(of(base()), of(changed(base(), 100_001, -1.0)))
    assert found == (
        f"column 'x' differs in 1 block(s) of rows, the first at rows {BLOCK_ROWS + 1:,} to {2 * BLOCK_ROWS:,}",
    )


def test_added_rows_are_told() -> None:
    assert differences(of([1.0]), of([1.0, 2.0]))[0] == "2 rows instead of 1"


def test_a_fingerprint_survives_json() -> None:
    found = of(base(), w=WORDS)
    assert Fingerprint.from_json(found.to_json()) == found


def test_partitions_are_combined_by_key_and_digest() -> None:
    assert combined({"a": "1", "b": "2"}) == combined({"b": "2", "a": "1"})
    assert combined({"a": "1", "b": "2"}) != combined({"a": "2", "b": "1"})


def test_an_empty_table_has_a_fingerprint() -> None:
    assert of(pd.array([], dtype="string[pyarrow]")).n_rows == 0


ROWS = st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=5)


@given(ROWS, ROWS)
def test_texts_have_one_fingerprint_exactly_when_they_are_equal(one: list[str | None], other: list[str | None]) -> None:
    prints = [of(pd.array(rows, dtype="string[pyarrow]")) for rows in (one, other)]
    assert (prints[0].digest == prints[1].digest) == (one == other)


@given(st.lists(st.floats(), max_size=5), st.lists(st.floats(), max_size=5))
def test_numbers_have_one_fingerprint_exactly_when_they_print_alike(one: list[float], other: list[float]) -> None:
    prints = [of(np.array(rows, dtype=np.float64)) for rows in (one, other)]
    assert (prints[0].digest == prints[1].digest) == (list(map(repr, one)) == list(map(repr, other)))
