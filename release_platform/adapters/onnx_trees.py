"""Checks the trees of an ONNX file: the operator TreeEnsemble, whose indices the runtime follows.

What is asked of each node: known attributes, each once, of equal lengths; plain splits (`<=`) and plain sums. Every
inner node and every leaf hangs in exactly one place, behind its parent, so the walk of a row ends. No tree is so deep
that the runtime, which builds it by recursion, runs out of stack. Every column of the answer has a leaf: its width is
paid for in bytes. The features are what a Reshape to [-1, width] gives, so that no row is narrower.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.adapters.protobuf import fields, fields_and_indices, messages, text

MAXIMUM_DEPTH = 1_000
MAXIMUM_NODES = 2_000_000
MAXIMUM_TARGETS = 10_000

Message = Mapping[int, Any]

_TYPES = {"number": 2, "tensor": 4, "indices": 7}
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("aggregate_function", "post_transform", "n_targets"), "number"),
    **dict.fromkeys(("nodes_splits", "nodes_modes", "leaf_weights"), "tensor"),
    **dict.fromkeys(("tree_roots", "nodes_featureids", "nodes_missing_value_tracks_true"), "indices"),
    **dict.fromkeys(("nodes_truenodeids", "nodes_trueleafs", "nodes_falsenodeids", "nodes_falseleafs"), "indices"),
    "leaf_targetids": "indices",
}
_DOUBLE, _UINT8, _INT64 = 11, 2, 7
_DTYPES: Mapping[int, np.dtype[Any]] = {_DOUBLE: np.dtype("<f8"), _UINT8: np.dtype("u1"), _INT64: np.dtype("<i8")}
_SUM = 1


def check_trees(graph: memoryview) -> None:
    """Refuses a graph with trees that lead outside of themselves, or of the features that they are given.

    Args:
        graph: The graph's message.

    Raises:
        ValueError: It holds such a node.
    """
    nodes, initializers = [list(fields(node)) for node in messages(graph, 1)], messages(graph, 5)
    n_nodes = 0
    for node in nodes:
        if texts(node, 4) == ["TreeEnsemble"]:
            found = attributes_of(node)
            width = _width(node, nodes, initializers)
            _check(found, width)
            n_nodes += len(found["nodes_featureids"])
    _require(n_nodes <= MAXIMUM_NODES, f"they have more than {MAXIMUM_NODES:,} nodes")


def attributes_of(node: list[Any]) -> dict[str, Any]:
    """Returns the attributes of an operator TreeEnsemble by name: numbers, and arrays of shape (n,).

    Raises:
        ValueError: They are not those that there have to be.
    """
    found: dict[str, Any] = {}
    for number, value in node:
        if number == 5:
            name, content = _attribute(value)
            _require(name not in found, f"the attribute {name} stands twice")
            found[name] = content
    _require(found.keys() == _KINDS.keys(), f"their attributes are {', '.join(sorted(found))}")
    return found


def levels(found: Mapping[str, Any]) -> Iterator[npt.NDArray[np.int64]]:
    """Yields the nodes of one depth after another, each of shape (n,), the roots first.

    Args:
        found: The attributes, in which no way leads in circles.
    """
    level = found["tree_roots"]
    while len(level):
        yield level
        ways = [(found[f"nodes_{way}nodeids"][level], found[f"nodes_{way}leafs"][level]) for way in ("true", "false")]
        level = np.concatenate([to[is_leaf == 0] for to, is_leaf in ways])


def _attribute(message: Any) -> tuple[str, Any]:
    others, indices = fields_and_indices(message, 8)
    whole = _once(others)
    name = text(whole.get(1, b""))
    kind = _KINDS.get(name, "")
    _require(whole.get(20) == _TYPES.get(kind), f"the attribute {name!a:.40} is not known, or of another type")
    match kind:
        case "number":
            _require(whole.keys() == {1, 3, 20} and type(whole[3]) is int and not len(indices), f"{name} is no number")
            return name, whole[3]
        case "tensor":
            _require(whole.keys() == {1, 5, 20} and not len(indices), f"{name} is no tensor")
            return name, _tensor(whole[5])
        case _:
            _require(whole.keys() == {1, 20}, f"{name} holds more than indices")
            return name, indices


def _tensor(message: memoryview) -> npt.NDArray[Any]:
    """Returns a tensor of one dimension, whose values stand in its raw bytes."""
    whole = _once(list(fields(message)))
    _require({1, 2, 9} <= whole.keys() <= {1, 2, 8, 9}, "a tensor of them is not plain")
    length, kind, raw = whole[1], whole[2], whole[9]
    _require(type(length) is int and kind in _DTYPES and isinstance(raw, memoryview), "a tensor of them is not plain")
    _require(len(raw) == length * _DTYPES[kind].itemsize, "a tensor of them is not as long as it says")
    return np.frombuffer(raw, dtype=_DTYPES[kind])


def _width(node: list[Any], nodes: list[list[Any]], initializers: list[memoryview]) -> int:
    """Returns how many features each row has that the node is given, for sure."""
    given = texts(node, 1)
    makers = [maker for maker in nodes if set(texts(maker, 2)) & set(given)]
    _require(len(given) == len(makers) == 1 and texts(makers[0], 4) == ["Reshape"], "they are not behind a Reshape")
    _require(texts(makers[0], 7) in ([], [""]) and len(texts(makers[0], 1)) == 2, "their Reshape is another one")
    shape = texts(makers[0], 1)[1]
    known = [message for message in initializers if texts(list(fields(message)), 8) == [shape]]
    _require(len(known) == 1, "the shape of their features is not constant")
    sizes = _tensor(known[0])
    _require(sizes.dtype == _DTYPES[_INT64] and len(sizes) == 2, "the shape of their features is not [-1, width]")
    _require(sizes[0] == -1 and sizes[1] > 0, "the shape of their features is not [-1, width]")
    return int(sizes[1])


def _check(found: Mapping[str, Any], width: int) -> None:
    _require(found["aggregate_function"] == _SUM and not found["post_transform"], "they do more than add")
    features, targets = found["nodes_featureids"], found["leaf_targetids"]
    splits, weights, modes = found["nodes_splits"], found["leaf_weights"], found["nodes_modes"]
    kinds = [tensor.dtype for tensor in (splits, weights, modes)]
    _require(kinds == [_DTYPES[_DOUBLE], _DTYPES[_DOUBLE], _DTYPES[_UINT8]], "they are not in double precision")
    each = [value for name, value in found.items() if name.startswith("nodes_")]
    _require({len(value) for value in each} == {len(features)} and len(features) > 0, "their nodes differ in length")
    _require(len(targets) == len(weights), "their leaves differ in length")
    _require(not np.any(modes), "they split by something other than <=")
    _require(bool(np.all(found["nodes_missing_value_tracks_true"] <= 1)), "a missing value goes neither way")
    _require(bool(np.all(features < width)), "they split by a feature that there is not")
    _require(0 < found["n_targets"] <= MAXIMUM_TARGETS, f"they answer in more than {MAXIMUM_TARGETS:,} columns")
    _require(bool(np.all(targets < found["n_targets"])), "a leaf is of a column that there is not")
    _require(len(np.unique(targets)) == found["n_targets"], "a column of their answer has no leaf")
    _check_paths(found, len(features), len(targets))


def _check_paths(found: Mapping[str, Any], n_nodes: int, n_leaves: int) -> None:
    below: list[Any] = [found["tree_roots"]]
    leaves: list[Any] = []
    for way in ("true", "false"):
        to, is_leaf = found[f"nodes_{way}nodeids"], found[f"nodes_{way}leafs"]
        _require(bool(np.all(is_leaf <= 1)), "a child is neither node nor leaf")
        inner = is_leaf == 0
        _require(bool(np.all(to[inner] > np.flatnonzero(inner))), "they lead in circles")
        below.append(to[inner])
        leaves.append(to[~inner])
    for places, n in ((np.concatenate(below), n_nodes), (np.concatenate(leaves), n_leaves)):
        _require(bool(np.all(places < n)), "they lead outside of themselves")
        _require(bool(np.all(np.bincount(places, minlength=n) == 1)), "a node or leaf hangs nowhere, or twice")
    deep = next(islice(levels(found), MAXIMUM_DEPTH, None), None)
    _require(deep is None, f"one is more than {MAXIMUM_DEPTH:,} splits deep")


def _once(found: list[Any]) -> dict[int, Any]:
    whole = dict(found)
    _require(len(whole) == len(found), "a field of them stands twice")
    return whole


def texts(message: list[Any], wanted: int) -> list[str]:
    """Returns the fields of one number as text. Raises `ValueError` if one is none."""
    return [text(value) for number, value in message if number == wanted]


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(f"of the trees: {problem}")
