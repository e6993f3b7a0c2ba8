"""Valid requests of each protocol. A protocol is tried as soon as the server's OpenAPI schema has a route of it."""

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from release_platform.domain.features import ColumnType, Input
from tests.fuzz.json_text import Arr, Node, Obj, Place, quoted
from tests.fuzz.values import good_value

Table = list[list[bytes]]
"""Rows of values, in the order of the inputs, as JSON text."""

_DATATYPES = {
    ColumnType.NUMBER: "FP64",
    ColumnType.INTEGER: "INT64",
    ColumnType.BOOLEAN: "BOOL",
    ColumnType.CATEGORY: "BYTES",
    ColumnType.TIMESTAMP: "BYTES",
}
_INT64 = re.compile(rb"-?\d{1,18}|null")


@dataclass(slots=True, kw_only=True)
class Draft:
    """A request before and while it is spoilt.

    Attributes:
        tree: Its JSON.
        cells: Where the value of each row and input stands, if it stands alone.
        records: The object of each row, if rows are objects.
        columns: The array of each input, if inputs are arrays.
        tail: Bytes behind the JSON text; None where the protocol has none.
    """

    tree: Node
    cells: dict[tuple[int, str], Place] = field(default_factory=dict)
    records: list[Obj] = field(default_factory=list)
    columns: dict[str, Arr] = field(default_factory=dict)
    tail: bytes | None = None

    def forget_places(self) -> None:
        """Is called when the tree changed its shape."""
        self.cells, self.records, self.columns = {}, [], {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A protocol: how its routes end, and the forms that a request may have."""

    name: str
    ending: str
    forms: tuple[Callable[[Sequence[Input], Table, Random], Draft], ...]

    def paths(self, templates: Sequence[str], model: str, version: str) -> list[str]:
        """Returns the paths of this protocol's routes that name the model."""
        named = [one for one in templates if one.endswith(self.ending) and "{" in one]
        return [
            "/".join((version if "version" in part else model) if part[:1] == "{" else part for part in one.split("/"))
            for one in named
        ]


def table_of(inputs: Sequence[Input], rng: Random) -> Table:
    """Returns a few rows that a model takes; now and then many."""
    n_rows = rng.choice((33, 50)) if rng.random() < 0.03 else rng.choice((1, 1, 1, 2, 3, 5))
    return [[good_value(one.type, one.nullable, rng) for one in inputs] for _ in range(n_rows)]


def _records(inputs: Sequence[Input], table: Table, rng: Random) -> tuple[Arr, Draft]:
    draft = Draft(tree=Obj())
    for number, values in enumerate(table):
        order = list(enumerate(values))
        rng.shuffle(order)
        record = Obj([(inputs[place].name, value) for place, value in order])
        draft.records.append(record)
        draft.cells |= {(number, inputs[place].name): Place(record, i) for i, (place, _) in enumerate(order)}
    return Arr(list(draft.records)), draft


def _columns(inputs: Sequence[Input], table: Table, _: Random) -> tuple[Obj, Draft]:
    draft = Draft(tree=Obj())
    for place, one in enumerate(inputs):
        column = draft.columns[one.name] = Arr([values[place] for values in table])
        draft.cells |= {(number, one.name): Place(column, number) for number in range(len(table))}
    return Obj(list(draft.columns.items())), draft


def _lists(inputs: Sequence[Input], table: Table) -> tuple[Arr, Draft]:
    draft = Draft(tree=Obj())
    rows = [Arr(list(values)) for values in table]
    for number, row in enumerate(rows):
        draft.cells |= {(number, one.name): Place(row, place) for place, one in enumerate(inputs)}
    return Arr(list(rows)), draft


def _named_records(member: str) -> Callable[[Sequence[Input], Table, Random], Draft]:
    def form(inputs: Sequence[Input], table: Table, rng: Random) -> Draft:
        rows, draft = _records(inputs, table, rng)
        draft.tree = Obj([(member, rows)])
        return draft

    return form


def _named_columns(member: str) -> Callable[[Sequence[Input], Table, Random], Draft]:
    def form(inputs: Sequence[Input], table: Table, rng: Random) -> Draft:
        columns, draft = _columns(inputs, table, rng)
        draft.tree = Obj([(member, columns)])
        return draft

    return form


def _split(inputs: Sequence[Input], table: Table, rng: Random) -> Draft:
    order = rng.sample(range(len(inputs)), len(inputs))
    rows, draft = _lists([inputs[i] for i in order], [[values[i] for i in order] for values in table])
    names = Arr([quoted(inputs[i].name, rng) for i in order])
    draft.tree = Obj([("dataframe_split", Obj([("columns", names), ("data", rows)]))])
    return draft


def _tensors(inputs: Sequence[Input], table: Table, rng: Random) -> Draft:
    _, draft = _columns(inputs, table, rng)
    tensors = [_tensor(one, draft.columns[one.name].items, [("data", draft.columns[one.name])]) for one in inputs]
    rng.shuffle(tensors)
    draft.columns = {}  # its shape says the length too
    draft.tree = Obj([("inputs", Arr(list(tensors)))])
    if rng.random() < 0.3:
        draft.tree.pairs.append(("id", quoted(rng.choice(("a", "", "ü:", "x" * 200)), rng)))
    return draft


def _binary_tensors(inputs: Sequence[Input], table: Table, _: Random) -> Draft:
    tensors, tail = [], b""
    for place, one in enumerate(inputs):
        values = [row[place] for row in table]
        packed = _packed(one, values)
        data: list[tuple[str | bytes, Node]] = [("data", Arr(list(values)))]
        if packed is not None:
            data = [("parameters", Obj([("binary_data_size", b"%d" % len(packed))]))]
            tail += packed
        tensors.append(_tensor(one, values, data))
    return Draft(tree=Obj([("inputs", Arr(list(tensors)))]), tail=tail)


def _tensor(one: Input, values: Sequence[Node], data: list[tuple[str | bytes, Node]]) -> Obj:
    datatype = _DATATYPES[one.type]
    if datatype == "INT64" and not all(isinstance(value, bytes) and _INT64.fullmatch(value) for value in values):
        datatype = "FP64"
    shape = Arr([b"%d" % len(values)])
    return Obj([("name", quoted(one.name)), ("shape", shape), ("datatype", quoted(datatype)), *data])


def _packed(one: Input, values: Sequence[bytes]) -> bytes | None:
    """Returns a tensor's bytes; None for what is sent in JSON beside it."""
    if one.type is ColumnType.NUMBER:
        return b"".join(struct.pack("<d", float("nan" if value == b"null" else value)) for value in values)
    if one.type is ColumnType.BOOLEAN and b"null" not in values:
        return bytes(value == b"true" for value in values)
    return None


NATIVE = Protocol(name="native", ending="/predict", forms=(_named_records("rows"), _named_columns("columns")))
SCORING = Protocol(
    name="scoring",
    ending="/invocations",
    forms=(_split, _named_records("dataframe_records"), _named_records("instances"), _named_columns("inputs")),
)
INFERENCE = Protocol(name="inference", ending="/infer", forms=(_tensors, _binary_tensors))

PROTOCOLS: Mapping[str, Protocol] = {one.name: one for one in (NATIVE, SCORING, INFERENCE)}
