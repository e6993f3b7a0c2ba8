"""What is done to a valid request. A change of one value says which field and row a refusal must name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from release_platform.domain.features import Input
from tests.fuzz.json_text import Arr, Obj, Place, places, quoted
from tests.fuzz.protocols import Draft
from tests.fuzz.values import bad_value, good_value


@dataclass(frozen=True, slots=True)
class Blame:
    """What a refusal must name; a row of None is not looked at."""

    field: str
    row: int | None


Change = Callable[[Draft, Sequence[Input], Random], Blame | None]

_SCALARS = [b"null", b"true", b"0", b"-1", b"1e999", b"NaN", b'"x"', b'"\\ud800"', b"[]", b"{}", b"9" * 400]
_LONG = "n" * 10_000


def spoil_value(draft: Draft, inputs: Sequence[Input], rng: Random) -> Blame | None:
    """Puts a value where the input does not take it."""
    if not draft.cells:
        return spoil_anything(draft, inputs, rng)
    (row, name), place = rng.choice(list(draft.cells.items()))
    one = next(one for one in inputs if one.name == name)
    place.put(bad_value(one.type, one.nullable, rng))
    return Blame(name, row)


def drop_value(draft: Draft, inputs: Sequence[Input], rng: Random) -> Blame | None:
    """Takes a value away: from a record, or from a column, which is then too short."""
    if draft.records:
        row = rng.randrange(len(draft.records))
        place = rng.randrange(len(inputs))
        name = draft.records[row].pairs[place][0]
        Place(draft.records[row], place).remove()
        assert isinstance(name, str)
        return Blame(name, row)
    if draft.columns:
        name = rng.choice([one.name for one in inputs])
        del draft.columns[name].items[0]
        return Blame(name, None) if name != inputs[0].name else None
    return spoil_anything(draft, inputs, rng)


def drop_column(draft: Draft, inputs: Sequence[Input], rng: Random) -> Blame | None:
    """Takes a column away, in every row."""
    name = rng.choice(inputs).name
    for place in [place for place in places(draft.tree) if isinstance(place.parent, Obj)]:
        if place.index < len(place.parent.pairs) and place.parent.pairs[place.index][0] == name:
            place.remove()
    return Blame(name, None) if draft.records or draft.columns else None


def add_column(draft: Draft, inputs: Sequence[Input], rng: Random) -> Blame | None:
    """Gives a column that the model does not take; its name may be long, misspelt, odd or no text at all."""
    spelt = rng.choice(inputs).name
    odd = ["", "\x00", "ß", _LONG, spelt[:-1], spelt.upper() + "_", "rows", "\ud800", "__proto__", "a:b", " " + spelt]
    name = rng.choice([one for one in odd if one not in {known.name for known in inputs}])
    if draft.records:
        row = rng.randrange(len(draft.records))
        draft.records[row].pairs.insert(rng.randrange(len(inputs) + 1), (name, b"1"))
        return Blame(name, row)
    if draft.columns:
        outer = next(place.get() for place in places(draft.tree) if isinstance(place.get(), Obj))
        assert isinstance(outer, Obj)
        outer.pairs.append((name, Arr([b"1"] * len(draft.columns[spelt].items))))
        return Blame(name, None)
    return spoil_anything(draft, inputs, rng)


def give_twice(draft: Draft, inputs: Sequence[Input], rng: Random) -> Blame | None:
    """Gives a key twice, the second time perhaps in other letters and with another value."""
    objects = [node for place in places(draft.tree) if isinstance(node := place.get(), Obj) and node.pairs]
    if isinstance(draft.tree, Obj) and draft.tree.pairs:
        objects.append(draft.tree)
    if not objects:
        return None
    found = rng.choice(objects)
    key, value = rng.choice(found.pairs)
    again = quoted(key, rng) if isinstance(key, str) else key
    found.pairs.insert(rng.randrange(len(found.pairs) + 1), (again, rng.choice([value, value, b"1", b"null"])))
    if not isinstance(key, str) or "\ud800" in key:
        return None
    row = next((i for i, record in enumerate(draft.records) if record is found), None)
    return Blame(key, row)


def spoil_anything(draft: Draft, inputs: Sequence[Input], rng: Random) -> Blame | None:
    """Replaces, removes or doubles any node."""
    found = list(places(draft.tree))
    if not found:
        draft.tree = rng.choice(_SCALARS)
        return None
    place = rng.choice(found)
    match rng.randrange(4):
        case 0:
            place.put(rng.choice(_SCALARS))
        case 1:
            place.remove()
        case 2 if isinstance(place.parent, Arr):
            place.parent.items.insert(place.index, place.get())
        case _:
            place.put(rng.choice([Obj([("a", place.get())]), Arr([place.get()]), Arr([place.get()] * 2)]))
    return None


def add_member(draft: Draft, _: Sequence[Input], rng: Random) -> Blame | None:
    """Gives the body a member that it does not have."""
    name = rng.choice(["rows", "columns", "inputs", "instances", "id", "parameters", "x", "", "\ud800", _LONG])
    if isinstance(draft.tree, Obj) and name not in {key for key, _ in draft.tree.pairs}:
        draft.tree.pairs.append((name, rng.choice(_SCALARS)))
    return None


def nest(draft: Draft, _: Sequence[Input], rng: Random) -> Blame | None:
    """Puts something deep where a value stands."""
    depth = rng.choice((2, 100, 1000, 1100, 20_000))
    opened, closed = rng.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
    deep = opened * depth + b"1" + closed * (depth if rng.random() < 0.9 else 0)
    found = list(places(draft.tree))
    if found:
        rng.choice(found).put(deep)
    else:
        draft.tree = deep
    return None


def replace_all(draft: Draft, _: Sequence[Input], rng: Random) -> Blame | None:
    """Sends something else altogether."""
    draft.tree = rng.choice(
        [*_SCALARS, b"", b" ", Obj(), Arr(), Arr([draft.tree]), b"\x00", b"rows=1", b"\x1f\x8b\x08"]
    )
    return None


def too_many_rows(draft: Draft, inputs: Sequence[Input], _: Random) -> Blame | None:
    """Sends more rows than one request may hold."""
    rows = next((p.get() for p in places(draft.tree) if isinstance(p.get(), Arr)), None) if draft.records else None
    for column in [rows] if isinstance(rows, Arr) else draft.columns.values():
        column.items.extend([column.items[0]] * 60)
    return None


def change_good_value(draft: Draft, inputs: Sequence[Input], rng: Random) -> Blame | None:
    """Puts another value that the input takes: the request stays good."""
    if draft.cells:
        (_, name), place = rng.choice(list(draft.cells.items()))
        one = next(one for one in inputs if one.name == name)
        place.put(good_value(one.type, one.nullable, rng))
    return None


CHANGES: tuple[tuple[int, Change], ...] = (
    (10, spoil_value),
    (2, drop_value),
    (2, drop_column),
    (3, add_column),
    (3, give_twice),
    (4, spoil_anything),
    (2, add_member),
    (1, nest),
    (1, replace_all),
    (1, too_many_rows),
    (2, change_good_value),
)

KEEP_THE_SHAPE = (spoil_value, change_good_value)
"""After these, every value still stands where it stood."""


def spoil_text(text: bytes, rng: Random) -> bytes:
    """Returns bytes that were cut, turned, doubled, or have something in them that JSON or UTF-8 does not have."""
    at = rng.randrange(len(text) + 1)
    other = rng.randrange(len(text) + 1)
    pieces = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\\", b'"', b"\\u00", b",",
              b":", b"}",
              b"]", b"{", b"[", b"//", b"/**/", b"\xe2\x80\xa8", b"\xc2\xa0", b"-", b"+1", b"01", b".5",
              b"0x1", b"'"]  # fmt: skip
    match rng.randrange(8):
        case 0:
            return text[:at]
        case 1:
            return b"\xef\xbb\xbf" + text
        case 2:
            return text.decode("latin-1").encode(rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8"]))
        case 3:
            return text + rng.choice([text, b"x", b"\x00", b"{}", b"\n\n", b" " * 40_000])
        case 4 if text:
            return text[: at - 1] + bytes([text[at - 1] ^ (1 << rng.randrange(8))]) + text[at:]
        case 5:
            return text[: min(at, other)] + text[max(at, other) :]
        case _:
            return text[:at] + rng.choice(pieces) + text[at:]
