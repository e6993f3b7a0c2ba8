"""JSON texts as trees that can also hold what no JSON library writes: keys twice, `1e999`, bytes that are no text."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f", "/": "\\/"}
_SPACES = ("", "", "", "", " ", "\n", "\t ", "\r\n")


@dataclass(slots=True)
class Obj:
    """An object: keys and values in order; a key that is bytes is written as it is."""

    pairs: list[tuple[str | bytes, "Node"]] = field(default_factory=list)


@dataclass(slots=True)
class Arr:
    """An array."""

    items: list["Node"] = field(default_factory=list)


Node = Obj | Arr | bytes
"""A tree; bytes are a token as it is written."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands."""

    parent: Obj | Arr
    index: int

    def get(self) -> Node:
        """Returns the node that stands here."""
        return self.parent.pairs[self.index][1] if isinstance(self.parent, Obj) else self.parent.items[self.index]

    def put(self, node: Node) -> None:
        """Replaces it."""
        if isinstance(self.parent, Obj):
            self.parent.pairs[self.index] = (self.parent.pairs[self.index][0], node)
        else:
            self.parent.items[self.index] = node

    def remove(self) -> None:
        """Takes it away, and its key with it."""
        del (self.parent.pairs if isinstance(self.parent, Obj) else self.parent.items)[self.index]


def places(node: Node) -> Iterator[Place]:
    """Yields every place inside a tree."""
    inner = [value for _, value in node.pairs] if isinstance(node, Obj) else node.items if isinstance(node, Arr) else []
    for index, value in enumerate(inner):
        assert isinstance(node, Obj | Arr)
        yield Place(node, index)
        yield from places(value)


def quoted(text: str, rng: Random | None = None) -> bytes:
    """Returns a text as a JSON string; with `rng`, written in one of its many ways."""
    return b'"' + b"".join(_char(char, rng) for char in text) + b'"'


def _char(char: str, rng: Random | None) -> bytes:
    way = rng.random() if rng is not None else 1.0
    if char in '"\\' or ord(char) < 0x20 or 0xD800 <= ord(char) < 0xE000 or way < 0.1:
        if char in _SHORT and way >= 0.05:
            return _SHORT[char].encode()
        units = char.encode("utf-16-be", "surrogatepass")
        return b"".join(b"\\u%04x" % int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return char.encode()


def written(node: Node, rng: Random) -> bytes:
    """Returns a tree as text, with white space where it may stand; half of all texts have none."""
    spaces = _SPACES if rng.random() < 0.5 else ("",)

    def space() -> bytes:
        return rng.choice(spaces).encode()

    def write(node: Node) -> bytes:
        if isinstance(node, bytes):
            return space() + node + space()
        if isinstance(node, Arr):
            return space() + b"[" + b",".join(map(write, node.items)) + b"]" + space()
        pairs = [
            space()
            + (key if isinstance(key, bytes) else quoted(key, rng if len(spaces) > 1 else None))
            + space()
            + b":"
            + write(value)
            for key, value in node.pairs
        ]
        return space() + b"{" + b",".join(pairs) + b"}" + space()

    return write(node)
