"""Scores partitions of a data set in a process of its own: `python -m serving.batch`, one JSON line in, one out.

The model comes by the way of the server (`ModelSource`), and rows through the door of a request: a partition is read
in pieces of as many rows as a request may have, each as the body of an Arrow request. So the rules are those of the
server, and the answers are equal to the last bit to those to the same pieces.

```
{"open": {"tracking_uri", "key_folder", "model", "version"}}    -> {"by": {...}}           the version that scores
{"score": {...}, "keep": [...]}                                 -> {"outcome": {...}}
                                                                or {"problem", "remedy", "exit_code"}
```
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.datasets import find_names, group_digest, reading, writing
from release_platform.adapters.mlflow_rest import reader_at
from release_platform.adapters.trust import Trust, proof_of
from release_platform.domain.errors import IntegrityError, NotFound, ReleaseError, SourceError, Unavailable
from release_platform.domain.scoring import Outcome, Partition, ScoringModel, State, is_same, names_of
from serving.arrow import STREAM, as_batch, read_arrow
from serving.cache import PackageCache
from serving.computing import check, predict
from serving.errors import Problem
from serving.limits import Limits
from serving.models import UNASSIGNED, LoadedModel, Lost, Origin, Refused, Went
from serving.registry import ALIAS, ModelSource

LIMITS = Limits()
ROWS_TOGETHER = 100_000
"""Rows of a row group of an output, at most; they are held in memory."""


def open_model(tracking_uri: str, key_folder: Path, folder: Path, model: str, version: str | None) -> LoadedModel:
    """Returns a version that is, or was, in Production, verified and loaded as the server does it.

    Args:
        tracking_uri: The registry.
        key_folder: Whose `trusted/*.pem` are the keys that count.
        folder: Where the version's files are fetched to.
        model: The model's name.
        version: The version's number; None for the one in Production.

    Raises:
        NotFound: Nothing is in Production, or there is no such version.
        IntegrityError: A signature, a file or a golden answer is wrong, or the version was never in Production.
        Unavailable: The registry does not answer.
    """
    registry = reader_at(tracking_uri)
    source = ModelSource(
        connect=lambda: registry,
        cache=PackageCache(folder),
        trust=Trust.in_folder(key_folder),
        clock=SystemClock(),
    )
    if version is not None:
        record = registry.get_version(model, version)
        proof = proof_of(record, ALIAS)
        certificate = source.authorise(proof, record.manifest, model, version)
        return source.prepare(certificate, proof, record.manifest, None, Origin.REGISTRY)
    match source.look(model, None, None):
        case Went(loaded=loaded):
            return loaded
        case Refused(refusal=refusal) if refusal.kind == UNASSIGNED:
            raise NotFound(refusal.reason, remedy=f"`release promote {model} --reason ...` first")
        case Refused(refusal=refusal):
            raise IntegrityError(refusal.sentence, remedy=f"see `release audit {model}`")
        case Lost(problem=problem):
            raise Unavailable(problem, remedy="see that the registry answers, and score again")
    raise AssertionError("a first look ends in one of these")


def described(loaded: LoadedModel) -> ScoringModel:
    """Returns the names of a loaded version."""
    return ScoringModel(
        model=loaded.model,
        version=loaded.version,
        digest=loaded.digest,
        epoch=loaded.epoch,
        engine=loaded.package.engine_name,
    )


def score(loaded: LoadedModel, partition: Partition, keep: Sequence[str]) -> State:
    """Scores a partition unless its output is there already, and returns which it was.

    Args:
        loaded: The version.
        partition: What to score, and where the output goes.
        keep: Columns of the input that the output has too.

    Raises:
        DataError: The input cannot be read, or a column or a row is not what the model takes; names it.
        IntegrityError: The model failed.
        Unavailable: A storage does not answer.
    """
    with reading(partition.source) as file:
        there = set(file.schema_arrow.names)
        taken = [name for name in loaded.form.names if name in there]
        _require(partition, keep, there)
        digest = group_digest(partition.source, file, partition.group, [*taken, *keep])
        names = names_of(described(loaded), partition, digest, keep)
        found = find_names(partition.target)
        if found is not None and is_same(found, names):
            return State.KEPT
        schema = _schema(loaded, file, keep, names)
        with writing(partition.target, schema) as writer:
            for table in _together(_scored(loaded, file, partition, taken, keep), schema):
                writer.write_table(table, row_group_size=ROWS_TOGETHER)
    return State.SCORED


def _require(partition: Partition, keep: Sequence[str], there: set[str]) -> None:
    for name in keep:
        if name not in there:
            raise SourceError(
                "there is no such column to keep", remedy="correct --keep", source=partition.source, column=name
            )


def _schema(loaded: LoadedModel, file: pq.ParquetFile, keep: Sequence[str], names: Mapping[str, str]) -> pa.Schema:
    said = as_batch(loaded, loaded.package.predict(loaded.package.golden_inputs)).schema
    twice = set(keep) & set(said.names)
    if twice:
        raise SourceError(
            f"the output has a column '{min(twice)}' of its own", remedy="leave it out of --keep", source=loaded.model
        )
    return pa.schema([*(file.schema_arrow.field(name) for name in keep), *said], metadata=dict(names))


def _scored(
    loaded: LoadedModel, file: pq.ParquetFile, partition: Partition, taken: Sequence[str], keep: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    first = partition.first_row
    pieces = file.iter_batches(LIMITS.max_rows, row_groups=[partition.group], columns=[*dict.fromkeys([*taken, *keep])])
    for piece in pieces:
        try:
            inputs = read_arrow(_as_body(piece.select(list(taken))), STREAM, loaded.form, LIMITS)
            predictions = predict(loaded, inputs)
            check(loaded, inputs, predictions)
        except Problem as problem:
            raise _told(problem, partition, first) from problem
        said = as_batch(loaded, predictions)
        columns = [*(piece.column(name) for name in keep), *said.columns]
        yield pa.RecordBatch.from_arrays(columns, names=[*keep, *said.schema.names])
        first += piece.num_rows


def _as_body(piece: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, piece.schema) as writer:
        writer.write_batch(piece)
    return bytes(sink.getvalue())


def _together(pieces: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    n_rows = 0
    for piece in pieces:
        held.append(piece)
        n_rows += piece.num_rows
        if n_rows >= ROWS_TOGETHER:
            yield pa.Table.from_batches(held).cast(schema)
            held, n_rows = [], 0
    if held:
        yield pa.Table.from_batches(held).cast(schema)


def _told(problem: Problem, partition: Partition, first_row: int) -> ReleaseError:
    """Returns a problem of a request as one of the data set: its row is counted from the beginning of the file."""
    said = problem.detail
    if problem.row is not None:
        said = said.replace(f"row {problem.row}", f"row {problem.row + first_row}", 1)
    if problem.status >= 500:
        return IntegrityError(f"{partition.named}: {said}", remedy="tell the model's owner")
    return SourceError(said, remedy="correct the data, and score again", source=partition.named)


class _Process:
    """The model of this process, once it is open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: LoadedModel | None = None

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the answer to one line."""
        if (opened := asked.get("open")) is not None:
            uri, keys = opened["tracking_uri"], Path(opened["key_folder"])
            self._loaded = open_model(uri, keys, self._folder, opened["model"], opened["version"])
            return {"by": asdict(described(self._loaded))}
        assert self._loaded is not None
        partition = Partition(**asked["score"])
        state, problem = State.FAILED, ""
        try:
            state = score(self._loaded, partition, asked["keep"])
        except ReleaseError as error:
            problem = error.problem
        return {"outcome": Outcome(partition=partition, state=state, problem=problem).to_json()}


def main() -> None:
    """Answers line after line until there are no more."""
    warnings.simplefilter("ignore")  # libraries' notes to developers
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers, TemporaryDirectory(prefix="scoring-") as folder:
        os.dup2(2, 1)  # what libraries print is no answer
        process = _Process(Path(folder))
        for line in sys.stdin:
            try:
                said = process.answer(json.loads(line))
            except ReleaseError as error:
                said = {"problem": error.problem, "remedy": error.remedy, "exit_code": error.exit_code}
            answers.write(json.dumps(said) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
