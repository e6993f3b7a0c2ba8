"""Attacks by the trees of model.onnx, whose indices the runtime follows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.files import Attack
from tests.hostile.workshop import FEATURES

HONEST: dict[str, Any] = {
    "aggregate_function": 1,
    "leaf_targetids": [0, 0, 0, 1, 1],
    "leaf_weights": np.array([0.5, -0.5, 1.0, 2.0, -2.0]),
    "n_targets": 2,
    "nodes_falseleafs": [1, 1, 1],
    "nodes_falsenodeids": [2, 1, 4],
    "nodes_featureids": [0, 1, 2],
    "nodes_missing_value_tracks_true": [0, 1, 0],
    "nodes_modes": np.zeros(3, dtype=np.uint8),
    "nodes_splits": np.array([15.0, 20.0, 500.0]),
    "nodes_trueleafs": [0, 1, 1],
    "nodes_truenodeids": [1, 0, 3],
    "post_transform": 0,
    "tree_roots": [0, 2],
}
"""Two trees over three features: one of two splits and one of one, each with a column of its own."""


def forest(width: Any = (-1, 3), **changed: Any) -> onnx.ModelProto:
    """Returns an honest classifier of two trees, with these attributes instead of its own; None leaves one out."""
    attributes = {name: value for name, value in {**HONEST, **changed}.items() if value is not None}
    plain = {
        name: numpy_helper.from_array(value, name) if isinstance(value, np.ndarray) else value
        for name, value in attributes.items()
    }
    nodes = [
        helper.make_node("Concat", list(FEATURES), ["columns"], axis=1),
        helper.make_node("Reshape", ["columns", "shape"], ["x"]),
        helper.make_node("TreeEnsemble", ["x"], ["scores"], domain="ai.onnx.ml", **plain),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in FEATURES]
    answer = [helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, [None, 2])]
    shape = numpy_helper.from_array(np.array(width, dtype=np.int64), "shape")
    made = helper.make_graph(nodes, "g", given, answer, [shape])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(made, ir_version=9, opset_imports=opsets)


def _with(**changed: Any) -> Attack:
    return lambda bench: bench.use_onnx(forest(**changed))


def _edited(change: Callable[[onnx.GraphProto], object]) -> Attack:
    def attack(bench: Any) -> Any:
        model = forest()
        change(model.graph)
        return bench.use_onnx(model)

    return attack


def _attribute(graph: onnx.GraphProto, name: str) -> onnx.AttributeProto:
    return next(attribute for attribute in graph.node[2].attribute if attribute.name == name)


def _chain(depth: int) -> dict[str, Any]:
    """Returns one tree that is a single path."""
    place = list(range(depth))
    return {
        "leaf_targetids": [0] * depth + [1],
        "leaf_weights": np.zeros(depth + 1),
        "nodes_falseleafs": [1] * depth,
        "nodes_falsenodeids": place,
        "nodes_featureids": [0] * depth,
        "nodes_missing_value_tracks_true": [0] * depth,
        "nodes_modes": np.zeros(depth, dtype=np.uint8),
        "nodes_splits": np.zeros(depth),
        "nodes_trueleafs": [0] * (depth - 1) + [1],
        "nodes_truenodeids": [*place[1:], depth],
        "tree_roots": [0],
    }


def _narrowed(graph: onnx.GraphProto) -> None:
    """The trees are given one column, and a shape that is told says that there are three."""
    graph.node[2].input[0] = FEATURES[0]
    graph.value_info.append(helper.make_tensor_value_info(FEATURES[0], TensorProto.DOUBLE, [None, 3]))


def _shape_that_is_computed(graph: onnx.GraphProto) -> None:
    graph.node.insert(0, helper.make_node("Identity", ["shape"], ["other"]))
    graph.node[2].input[1] = "other"


def _packed(graph: onnx.GraphProto) -> None:
    """Indices that only another reader sees: a field that is not on the list of this attribute."""
    _attribute(graph, "nodes_featureids").floats.append(1.0)


FORESTS: dict[str, Attack] = {
    "children-in-a-circle": _with(nodes_truenodeids=[0, 0, 3]),
    "child-before-its-parent": _with(
        nodes_trueleafs=[1, 0, 1], nodes_truenodeids=[0, 0, 3], tree_roots=[1, 2], nodes_falsenodeids=[2, 1, 4]
    ),
    "child-beyond": _with(nodes_truenodeids=[10**6, 0, 3]),
    "child-negative": _with(nodes_truenodeids=[-1, 0, 3]),
    "child-of-64-bits": _with(nodes_truenodeids=[2**62, 0, 3]),
    "child-of-two-parents": _with(nodes_trueleafs=[0, 0, 1], nodes_truenodeids=[1, 2, 3]),
    "doubling": _with(
        **{
            **_chain(40),
            "nodes_falseleafs": [0] * 39 + [1],
            "nodes_falsenodeids": [*range(1, 40), 0],
            "nodes_truenodeids": [*range(1, 40), 1],
            "leaf_targetids": [0, 1],
            "leaf_weights": np.zeros(2),
        }
    ),
    "node-that-hangs-nowhere": _with(tree_roots=[0]),
    "too-deep": _with(**_chain(1_001)),
    "too-deep-for-the-stack": _with(**_chain(200_000)),
    "leaf-beyond": _with(nodes_falsenodeids=[2, 1, 5]),
    "leaf-negative": _with(nodes_falsenodeids=[2, 1, -4]),
    "leaf-twice": _with(nodes_falsenodeids=[2, 1, 3]),
    "leaf-that-is-none-of-both": _with(nodes_falseleafs=[1, 2, 1]),
    "root-beyond": _with(tree_roots=[0, 3]),
    "root-negative": _with(tree_roots=[0, -2]),
    "root-twice": _with(tree_roots=[0, 2, 2]),
    "no-roots": _with(tree_roots=None),
    "feature-beyond": _with(nodes_featureids=[0, 1, 3]),
    "feature-far-beyond": _with(nodes_featureids=[0, 1, 2**31 - 1]),
    "feature-negative": _with(nodes_featureids=[0, 1, -1]),
    "feature-beyond-32-bits": _with(nodes_featureids=[0, 1, 2**32]),
    "feature-of-a-wider-reshape": _with(width=(-1, 4), nodes_featureids=[0, 1, 3]),
    "rows-for-features": _with(width=(3, -1)),
    "shape-of-one": _with(width=(-1,)),
    "shape-of-nothing": _with(width=(-1, 0)),
    "shape-that-is-computed": _edited(_shape_that_is_computed),
    "features-as-they-come": _edited(lambda graph: graph.node[2].input.__setitem__(0, "columns")),
    "features-of-an-untrue-shape": _edited(_narrowed),
    "target-beyond": _with(leaf_targetids=[0, 0, 0, 1, 2]),
    "target-negative": _with(leaf_targetids=[0, 0, 0, 1, -1]),
    "targets-many": _with(n_targets=10**9),
    "targets-without-leaves": _with(n_targets=9_999),
    "targets-none": _with(n_targets=0),
    "targets-negative": _with(n_targets=-2),
    **{
        f"{name}-shorter": _with(**{name: HONEST[name][:-1]}) for name in HONEST if name.startswith(("nodes_", "leaf_"))
    },
    **{
        f"{name}-longer": _with(**{name: np.resize(HONEST[name], 10)})
        for name in ("nodes_splits", "nodes_modes", "leaf_weights")
    },
    "splits-in-single-precision": _with(nodes_splits=np.float32(HONEST["nodes_splits"])),
    "weights-in-single-precision": _with(leaf_weights=np.float32(HONEST["leaf_weights"])),
    "weights-in-two-dimensions": _with(leaf_weights=HONEST["leaf_weights"].reshape(1, 5)),
    "weights-longer-than-their-bytes": _edited(
        lambda graph: _attribute(graph, "leaf_weights").t.dims.__setitem__(0, 2**40)
    ),
    "weights-outside": _edited(
        lambda graph: setattr(_attribute(graph, "leaf_weights").t, "data_location", TensorProto.EXTERNAL)
    ),
    "members-of-a-set": _with(
        nodes_modes=np.array([6, 0, 0], dtype=np.uint8), membership_values=np.array([1.0, np.nan])
    ),
    "mode-that-is-none": _with(nodes_modes=np.array([0, 0, 99], dtype=np.uint8)),
    "missing-value-to-nowhere": _with(nodes_missing_value_tracks_true=[0, 7, 0]),
    "aggregate-another": _with(aggregate_function=3),
    "transform-another": _with(post_transform=4),
    "attribute-more": _with(nodes_hitrates=np.ones(3)),
    "attribute-twice": _edited(lambda graph: graph.node[2].attribute.append(_attribute(graph, "n_targets"))),
    "attribute-of-two-kinds": _edited(_packed),
    "indices-as-a-number": _with(tree_roots=0),
}
