"""Chooses the held-out rows of a model, seeded: at random, by time, or by group.

A row keeps its side when others are added: what decides is the row's identity alone, but for the few at the border. The
version in Production is held against a candidate on the candidate's held-out rows; were those drawn anew from more
data, it would have been trained on most of them. A row's identity is its key (`contract.unique_together`), else its
position; that of a group its value.
"""

from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
import pandas as pd

from release_platform.domain.data_spec import SplitStrategy
from release_platform.domain.errors import DataError
from release_platform.domain.features import Column, ColumnType
from release_platform.domain.metrics import Task
from release_platform.domain.spec import ModelSpec

Mask = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]
_MIX = np.uint64(0x9E3779B97F4A7C15)


def held_out_rows(frame: pd.DataFrame, target: Column, spec: ModelSpec) -> Mask:
    """Returns which rows are held out, shape (n_rows,), bool; the same for the same data and seed.

    Args:
        frame: Raw data in the snapshot dtypes.
        target: Shape (n_rows,): labels as text, or numbers.
        spec: The model.

    Raises:
        DataError: The split is not possible, or puts copies of training rows among the held-out ones.
    """
    share, seed = spec.split.test_share, spec.seed
    match spec.split.strategy:
        case SplitStrategy.RANDOM:
            strata = np.zeros(len(target), dtype=np.int64) if spec.task is Task.REGRESSION else pd.factorize(target)[0]
            held_out = _random(strata, _drawn(_identities(frame, spec), seed), share)
            if not spec.split.allow_duplicates:
                _require_no_copies(frame, held_out, spec)
        case SplitStrategy.TIME:  # copies share their instant, so they cannot be on both sides
            held_out = _latest(_times(frame, spec), share, spec)
        case SplitStrategy.GROUP:  # ... and their group
            held_out = _groups(_require_present(frame, spec), share, spec)
        case _:
            assert_never(spec.split.strategy)
    return held_out


def _random(strata: npt.NDArray[np.int64], places: Hashes, share: float) -> Mask:
    """Holds out the first of each stratum, to the nearest row; one row at least of each stratum stays for training."""
    held_out = np.zeros(len(strata), dtype=bool)
    by_stratum = np.lexsort((places, strata))
    for rows in np.split(by_stratum, np.cumsum(np.bincount(strata))[:-1]):
        held_out[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    return held_out


def _identities(frame: pd.DataFrame, spec: ModelSpec) -> Hashes:
    key = list(spec.contract.unique_together)
    return _row_hashes(frame[key]) if key else np.arange(len(frame), dtype=np.uint64)


def _drawn(identities: Hashes, seed: int) -> Hashes:
    """Returns a seeded random number for each identity, whatever others there are."""
    drawn: Hashes = pd.util.hash_array(identities ^ pd.util.hash_array(np.array([seed], dtype=np.uint64)))
    return drawn


def _require_present(frame: pd.DataFrame, spec: ModelSpec) -> "pd.Series[Any]":
    assert spec.split.column is not None
    values = frame[spec.split.column]
    missing = values.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{spec.name}: {int(missing.sum()):,} row(s) have no '{spec.split.column}', which the "
            f"{spec.split.strategy} split needs; the first is row {int(missing.argmax()) + 1:,}",
            remedy="correct them at the source, or choose another split",
        )
    return values


def _times(frame: pd.DataFrame, spec: ModelSpec) -> Column:
    values = _require_present(frame, spec)
    kind = spec.contract.columns[str(spec.split.column)].type
    if kind in {ColumnType.CATEGORY, ColumnType.BOOLEAN}:
        raise DataError(
            f"{spec.name}: '{spec.split.column}' is a {kind}, so rows cannot be ordered by it",
            remedy="name a timestamp (or a number) in `split.column`",
        )
    return values.to_numpy() if kind is ColumnType.TIMESTAMP else values.to_numpy(dtype=np.float64)


def _latest(times: Column, share: float, spec: ModelSpec) -> Mask:
    instants, counts = np.unique(times, return_counts=True)
    if len(instants) < 2:
        raise DataError(
            f"{spec.name}: all rows have the same '{spec.split.column}', so no row is later than another",
            remedy="name another column in `split.column`, or split at random",
        )
    from_here = np.cumsum(counts[::-1])[::-1][1:]  # rows at or after each instant but the first
    nearest = int(np.abs(from_here - share * len(times)).argmin())
    held_out: Mask = times >= instants[nearest + 1]
    return held_out


def _groups(groups: "pd.Series[Any]", share: float, spec: ModelSpec) -> Mask:
    codes, names = pd.factorize(groups, sort=True)
    if len(names) < 2:
        raise DataError(
            f"{spec.name}: all rows are of one group of '{spec.split.column}'",
            remedy="name another column in `split.column`, or split at random",
        )
    order = np.argsort(_drawn(_codes(pd.Series(names)), spec.seed), kind="stable")
    sizes = np.cumsum(np.bincount(codes)[order])[:-1]
    chosen = order[: int(np.abs(sizes - share * len(codes)).argmin()) + 1]
    return np.isin(codes, chosen)


def _require_no_copies(frame: pd.DataFrame, held_out: Mask, spec: ModelSpec) -> None:
    hashes = _row_hashes(frame)
    suspects = held_out & np.isin(hashes, hashes[~held_out])
    if suspects.any():
        rows = np.isin(hashes, hashes[suspects])
        seen = frame[rows & ~held_out].drop_duplicates()
        copies = frame[suspects].reset_index().merge(seen, on=list(frame.columns))["index"]
        if len(copies):
            raise DataError(
                f"{spec.name}: {len(copies):,} held-out row(s) are exact copies of training rows, first row "
                f"{int(copies.min()) + 1:,}: the model would be judged on what it was shown",
                remedy="drop duplicates at the source, use a group split, or write `split.allow_duplicates: true` if "
                "equal rows are different observations",
            )


def _row_hashes(frame: pd.DataFrame) -> Hashes:
    """Returns one 64-bit hash for each row; equal rows have equal hashes, in whatever data they stand."""
    hashes = np.zeros(len(frame), dtype=np.uint64)
    for name in frame.columns:
        hashes = (hashes ^ _codes(frame[name])) * _MIX
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _codes(series: "pd.Series[Any]") -> Hashes:
    if isinstance(series.dtype, pd.StringDtype):
        texts: Hashes = pd.util.hash_array(series.to_numpy(dtype=object, na_value=np.nan))
        return texts
    if series.dtype.kind == "M":
        return series.to_numpy().view(np.uint64)
    numbers = series.to_numpy(dtype=np.float64, na_value=np.nan) + 0.0  # -0.0 becomes 0.0
    numbers[np.isnan(numbers)] = np.nan  # one NaN
    return numbers.view(np.uint64)
