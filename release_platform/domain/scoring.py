"""Batch scoring: a Parquet data set, partition by partition, with one version; each output names what it was made by.

A partition is one row group of one file, and has one output file. An output that is there is whole, and stands for its
partition as long as its names are those that it would be given now: the version, and the digest of the very bytes that
were read. So a run that was broken off goes on where it was, a changed input or another version is scored anew.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringModel:
    """The version that scores; as text these names are in every output.

    Attributes:
        digest: `D(v)`, that its files hash to.
        epoch: The epoch of the move that put it into Production.
        engine: What computes.
    """

    model: str
    version: str
    digest: str
    epoch: int
    engine: str

    @property
    def names(self) -> dict[str, str]:
        """The names as metadata of a Parquet file."""
        return {name: str(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One row group of one file.

    Attributes:
        source: Address of the file.
        group: Number of the row group in it, from 0.
        first_row: Rows of the file that are before it.
        n_rows: Its rows.
        target: Address of its output.
    """

    source: str
    group: int
    first_row: int
    n_rows: int
    target: str

    @property
    def named(self) -> str:
        """What messages call it."""
        return f"{self.source}, row group {self.group}"


class State(StrEnum):
    """What became of a partition."""

    SCORED = "scored"
    KEPT = "kept"  # its output was there
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a partition; `problem` says why it failed, and is empty else."""

    partition: Partition
    state: State
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the outcome as a JSON value."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Outcome":
        """Returns the outcome that `to_json` wrote."""
        partition = Partition(**value["partition"])
        return Outcome(partition=partition, state=State(value["state"]), problem=value["problem"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What became of a data set.

    Attributes:
        by: The version that scored.
        outcomes: One for each partition.
        strange: Addresses of Parquet files beside the outputs that are of no partition of this data set.
    """

    by: ScoringModel
    outcomes: tuple[Outcome, ...]
    strange: tuple[str, ...] = ()

    def n(self, state: State) -> int:
        """Returns how many partitions became that."""
        return sum(outcome.state is state for outcome in self.outcomes)

    @property
    def n_rows(self) -> int:
        """How many rows have a score now."""
        return sum(outcome.partition.n_rows for outcome in self.outcomes if outcome.state is not State.FAILED)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why partitions failed, in their order."""
        failed = [outcome for outcome in self.outcomes if outcome.state is State.FAILED]
        failed.sort(key=lambda outcome: (outcome.partition.source, outcome.partition.group))
        return tuple(outcome.problem for outcome in failed)

    def to_json(self) -> dict[str, Any]:
        """Returns the scores as a JSON value."""
        counts = {state.value: self.n(state) for state in State}
        more = {"n_rows": self.n_rows, "problems": list(self.problems), "strange": list(self.strange)}
        return asdict(self.by) | {"partitions": counts} | more


def target_of(relative: str, group: int) -> str:
    """Returns the path of a partition's output, below that of all outputs; no two partitions share one.

    Args:
        relative: The file's path below that of the data set.
        group: Number of the row group.
    """
    return f"{relative.removesuffix(SUFFIX)}.{group:05d}{SUFFIX}"


def names_of(by: ScoringModel, partition: Partition, input_digest: str, keep: Sequence[str]) -> dict[str, str]:
    """Returns what an output is named by, as metadata of a Parquet file."""
    return by.names | {
        "input": partition.source,
        "input_row_group": str(partition.group),
        "input_digest": input_digest,
        "kept_columns": json.dumps(list(keep)),
    }


def is_same(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Returns whether an output is the one that would be made now; another epoch of a version changes nothing."""
    decisive = [name for name in wanted if name not in {"epoch", "input"}]
    return all(found.get(name) == wanted[name] for name in decisive)
