"""The order in which many rows go through the trees of an ONNX graph.

Walking down a tree costs mostly the branches that a processor guesses wrong, and it guesses from the rows before. So
rows that go the same ways at the splits that most rows come to follow one another: the answers to those splits are the
bits of a code, and rows are sorted by the place of their code in Gray's reflected order (F. Gray, US patent 2,632,058,
1953), in which neighbours differ in one bit, then by the feature that is asked for most. No answer depends on it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.adapters.onnx_trees import attributes_of, levels, texts
from release_platform.adapters.protobuf import fields, messages

Compute = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

FEWEST_ROWS = 256
"""Fewer are not worth the order: it takes 0.1 us a row and 20 us."""
_FEWEST_SPLITS = 500
_N_SPLITS = 16
_N_LEVELS = 8
_SAME_ANYWHERE = {"Reshape", "Cast", "Identity", "TreeEnsemble", "Neg", "Concat", "Sigmoid", "Div", "Add"}
_SAME_VALUES = {"Reshape", "Cast", "Identity"}


@dataclass(frozen=True, eq=False, slots=True)
class RowOrder:
    """What rows are sorted by.

    Attributes:
        features: The columns that 16 splits ask for, those of most rows first.
        thresholds: What each is compared with.
        most_asked: The column that is asked for most.
    """

    features: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.float64]
    most_asked: int

    def through(self, rows: npt.NDArray[np.float64], compute: Compute) -> npt.NDArray[np.float64]:
        """Returns what `compute` does of the rows, shape (n_rows, n_features). It is given many in this order."""
        if len(rows) < FEWEST_ROWS:
            return compute(rows)
        places = self.places(rows)
        computed = compute(rows.take(places, axis=0))
        answers = np.empty_like(computed)
        answers[places] = computed
        return answers

    def places(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Returns the places of the rows, shape (n_rows,), in the order in which they are to be computed."""
        bits = rows.take(self.features, axis=1) <= self.thresholds
        code = np.packbits(bits.ravel()).view(">u2").astype(np.uint16)
        for shift in (1, 2, 4, 8):
            code ^= code >> shift
        return np.lexsort((rows[:, self.most_asked], code))


def row_order(data: bytes, matrix: str) -> RowOrder | None:
    """Returns the order for a graph that ONNX Runtime has loaded.

    Args:
        data: The file.
        matrix: The input that holds the rows.

    Returns:
        None where the trees are few or are not given the rows as they are, and where something is computed whose last
        bit depends on the place of a row, as BLAS and Softmax do.
    """
    (graph,) = messages(memoryview(data), 7)
    nodes = [list(fields(node)) for node in messages(graph, 1)]
    operators = [texts(node, 4)[0] for node in nodes]
    if operators.count("TreeEnsemble") != 1 or not _SAME_ANYWHERE.issuperset(operators):
        return None
    makers = {name: place for place, node in enumerate(nodes) for name in texts(node, 2)}
    trees = operators.index("TreeEnsemble")
    given = texts(nodes[trees], 1)[0]
    while given in makers and operators[makers[given]] in _SAME_VALUES:
        given = texts(nodes[makers[given]], 1)[0]
    return _of_trees(attributes_of(nodes[trees])) if given == matrix else None


def _of_trees(found: Mapping[str, Any]) -> RowOrder | None:
    """Takes it that each split sends half of its rows either way. None where they are few, or fewer than 16 differ."""
    if len(found["nodes_splits"]) < _FEWEST_SPLITS:
        return None
    upper = list(islice(levels(found), _N_LEVELS))
    node = np.concatenate(upper)
    weight = np.repeat(0.5 ** np.arange(len(upper)), [len(level) for level in upper])
    feature, threshold = found["nodes_featureids"][node], found["nodes_splits"][node]
    splits, place = np.unique(np.column_stack([feature, threshold]), axis=0, return_inverse=True)
    best = splits[np.argsort(-np.bincount(place.ravel(), weight), kind="stable")[:_N_SPLITS]]
    if len(best) < _N_SPLITS:
        return None
    return RowOrder(
        features=best[:, 0].astype(np.int64),
        thresholds=np.ascontiguousarray(best[:, 1]),
        most_asked=int(np.bincount(feature, weight).argmax()),
    )
