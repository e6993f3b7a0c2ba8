"""Trees of scikit-learn as the attributes of the operator TreeEnsemble (ai.onnx.ml 5), in double precision.

The operator adds the leaves of its trees in their order, as scikit-learn does, so the sums are equal to the last bit. A
leaf gives one number to one column of the answer, so trees that give several are added once for each.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_SUM = 1
_BRANCH_LEQ = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree as arrays of shape (n_nodes,), its root first. Only `leaf` means something at a leaf."""

    leaf: npt.NDArray[np.bool_]
    left: npt.NDArray[Any]
    right: npt.NDArray[Any]
    feature: npt.NDArray[Any]
    threshold: npt.NDArray[np.float64]
    missing_left: npt.NDArray[Any]


@dataclass(slots=True)
class Ensemble:
    """The trees of a model: the inner nodes of all in one row, and the leaves of all in another."""

    n_nodes: int = 0
    n_leaves: int = 0
    _parts: dict[str, list[npt.NDArray[Any]]] = field(default_factory=dict)

    def add(self, tree: Tree, values: npt.NDArray[np.float64], target: int = 0) -> None:
        """Adds a tree that gives `values`, shape (n_nodes,), at its leaves to one column of the answer."""
        if tree.leaf[0]:
            self.add_constant(float(values[0]), target)
            return
        leaf, inner = tree.leaf, ~tree.leaf
        place = np.where(leaf, self.n_leaves + np.cumsum(leaf), self.n_nodes + np.cumsum(inner)) - 1
        left, right = tree.left[inner], tree.right[inner]
        self._append(
            tree_roots=[self.n_nodes],
            nodes_featureids=tree.feature[inner],
            nodes_splits=tree.threshold[inner],
            nodes_missing_value_tracks_true=tree.missing_left[inner],
            nodes_truenodeids=place[left],
            nodes_trueleafs=leaf[left],
            nodes_falsenodeids=place[right],
            nodes_falseleafs=leaf[right],
            leaf_weights=values[leaf],
            leaf_targetids=np.full(np.count_nonzero(leaf), target),
        )

    def add_constant(self, value: float, target: int = 0) -> None:
        """Adds one value, whatever the row: a split with the same on both sides, for a leaf alone is no tree here."""
        self._add_chain(1, value, value, target)

    def add_guard(self, n_features: int) -> None:
        """Adds 0, or NaN where one of the features is missing, for models that take no missing value."""
        self._add_chain(n_features, 0.0, np.nan, 0)

    def _add_chain(self, n_features: int, value: float, otherwise: float, target: int) -> None:
        inner = np.arange(2 * n_features + 1) % 2 == 0
        inner[-1] = False
        place = np.arange(len(inner))
        tree = Tree(
            leaf=~inner,
            left=place + 2,
            right=place + 1,
            feature=place // 2,
            threshold=np.full(len(inner), np.inf),
            missing_left=np.zeros(len(inner)),
        )
        values = np.full(len(inner), otherwise)
        values[-1] = value
        self.add(tree, values, target)

    def _append(self, **parts: Any) -> None:
        for name, part in parts.items():
            self._parts.setdefault(name, []).append(np.asarray(part))
        self.n_nodes += len(parts["nodes_featureids"])
        self.n_leaves += len(parts["leaf_weights"])

    def attributes(self) -> dict[str, Any]:
        """Returns the attributes of the operator."""
        from onnx import numpy_helper

        whole = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        tensors = {name: whole.pop(name).astype(np.float64) for name in ("nodes_splits", "leaf_weights")}
        tensors["nodes_modes"] = np.full(self.n_nodes, _BRANCH_LEQ, dtype=np.uint8)
        return {
            **{name: part.astype(np.int64).tolist() for name, part in whole.items()},
            **{name: numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()},
            "n_targets": int(whole["leaf_targetids"].max()) + 1,
            "aggregate_function": _SUM,
            "post_transform": 0,
        }
