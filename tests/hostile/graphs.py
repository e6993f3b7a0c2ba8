"""Attacks by model.onnx."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.hostile.files import Attack
from tests.hostile.workshop import graph


def _model(change: Callable[[onnx.ModelProto], object]) -> Attack:
    def attack(bench):
        model = graph()
        change(model)
        return bench.use_onnx(model)

    return attack


def _nodes(*nodes: onnx.NodeProto, **more) -> Attack:
    return lambda bench: bench.use_onnx(graph(*nodes, **more))


def _constant(name: str, shape: list[int], kind: int = TensorProto.DOUBLE) -> onnx.TensorProto:
    return helper.make_tensor(name, kind, shape, np.ones(int(np.prod(shape))))


def _external(location: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        weights = model.graph.initializer[0]
        weights.ClearField("double_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
        weights.external_data.add(key="length", value="48")

    return change


def _endless_loop() -> onnx.NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.DOUBLE, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.DOUBLE, None),
        ],
    )
    return helper.make_node("Loop", ["", "yes", "mean radius"], ["never"], body=body)


def _nested(depth: int) -> onnx.GraphProto:
    inner = helper.make_graph([], "g", [], [])
    for _ in range(depth):
        inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "g", [], [])
    return inner


def _declared(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = dims

    return change


def _tree(model: onnx.ModelProto) -> None:
    model.graph.node.insert(
        0,
        helper.make_node(
            "TreeEnsembleRegressor",
            ["mean radius"],
            ["t"],
            domain="ai.onnx.ml",
            n_targets=1,
            nodes_treeids=[0, 0, 0],
            nodes_nodeids=[0, 1, 2],
            nodes_featureids=[10**9, 0, 0],
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
            nodes_values=[0.0, 0.0, 0.0],
            nodes_truenodeids=[1, 0, 0],
            nodes_falsenodeids=[2, 0, 0],
            target_treeids=[0, 0],
            target_nodeids=[1, 2],
            target_ids=[0, 0],
            target_weights=[1.0, 2.0],
        ),
    )


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "other"


def _float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _matrix(width: int, *more: str) -> Attack:
    """All numbers as one input, which is not as wide as the plan says, or not the only one."""

    def change(model: onnx.ModelProto) -> None:
        del model.graph.node[0], model.graph.input[:]
        shapes = {"features": width, **dict.fromkeys(more, 1)}
        for name, columns in shapes.items():
            model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, columns]))
        model.graph.node[0].input[0] = "features"

    return _model(change)


def _in_front(node: onnx.NodeProto) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.node.insert(0, node)


def _raw(data: bytes) -> Attack:
    return lambda bench: bench.use_onnx(data)


def _honest_and(more: bytes) -> Attack:
    return lambda bench: bench.use_onnx(graph().SerializeToString() + more)


def _wider_answer(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [3, 3]
    model.graph.initializer[0].double_data.extend([0.0] * 3)
    del model.graph.output[0].type.tensor_type.shape.dim[:]


def _another_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 3]))


GRAPHS: dict[str, Attack] = {
    "external-data": _model(_external("/etc/passwd")),
    "external-data-parent": _model(_external("../../../../etc/passwd")),
    "external-data-device": _model(_external("/dev/zero")),
    "endless-loop": _nodes(_endless_loop(), initializers=(_constant("yes", [], TensorProto.BOOL),)),
    "branch": _model(_in_front(helper.make_node("If", ["x"], ["y"], then_branch=_nested(1)))),
    "graphs-in-graphs": _model(_in_front(helper.make_node("If", ["x"], ["y"], then_branch=_nested(15)))),
    "scan": _model(_in_front(helper.make_node("Scan", ["x"], ["y"], body=_nested(1), num_scan_inputs=1))),
    "operator-of-another-domain": _nodes(helper.make_node("Run", ["mean radius"], ["y"], domain="com.evil")),
    "operator-of-the-runtime": _nodes(helper.make_node("Gelu", ["mean radius"], ["y"], domain="com.microsoft")),
    "operator-of-python": _nodes(helper.make_node("PyOp", ["mean radius"], ["y"], domain="ai.onnx.contrib")),
    "domain-imported": _model(lambda model: model.opset_import.append(helper.make_opsetid("com.evil", 1))),
    "function": _model(
        lambda model: model.functions.append(
            helper.make_function("com.evil", "F", ["a"], ["b"], [], [helper.make_opsetid("", 18)])
        )
    ),
    "training": _model(lambda model: model.training_info.add()),
    "sparse-initializer": _model(lambda model: model.graph.sparse_initializer.add()),
    "metadata-that-configures": _model(lambda model: model.graph.metadata_props.add(key="a", value="b")),
    "terabytes-declared": _model(_declared(10**6, 10**6)),
    "product-overflows": _model(_declared(2**32, 2**32)),
    "negative-length": _model(_declared(-3, -2)),
    "shape-to-memory": _nodes(
        helper.make_node("ConstantOfShape", ["shape"], ["y"]),
        initializers=(helper.make_tensor("shape", TensorProto.INT64, [2], [10**6, 10**6]),),
    ),
    "tiled-memory": _nodes(
        helper.make_node("Tile", ["mean radius", "n"], ["y"]),
        initializers=(helper.make_tensor("n", TensorProto.INT64, [2], [10**6, 10**6]),),
    ),
    "range": _nodes(helper.make_node("Range", ["a", "b", "c"], ["y"])),
    "random": _nodes(helper.make_node("RandomNormal", [], ["y"], shape=[10**6, 10**6])),
    "broadcast-to-memory": _nodes(
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["d"]),
        helper.make_node("Add", ["mean radius", "d"], ["e"]),
        helper.make_node("Mul", ["e", "e"], ["f"]),
        initializers=(_constant("a", [40_000, 1]), _constant("b", [1, 40_000])),
    ),
    "tree-that-reads-beyond": _model(_tree),
    "input-other": _model(_rename_input),
    "input-of-another-type": _model(_float_input),
    "matrix-narrower": _matrix(2),
    "matrix-wider": _matrix(10**6),
    "matrix-and-a-column": _matrix(3, "mean radius"),
    "input-more": lambda bench: bench.use_onnx(graph(inputs=("mean radius", "mean texture", "mean area", "secret"))),
    "answer-wider-than-the-classes": _model(_wider_answer),
    "answer-of-another-output": _model(_another_output),
    "pickle-instead": lambda bench: bench.use_onnx(bench.pickled()),
    "empty": _raw(b""),
    "no-graph": _raw(b"\x08\x08"),
    "endless-varint": _raw(b"\xff" * 100),
    "length-beyond": _raw(b"\x3a\xff\xff\xff\xff\x07"),
    "group": _honest_and(b"\x0b\x0c"),
    "unknown-field": _honest_and(b"\xf8\x07\x01"),
    "second-graph-to-be-merged": _honest_and(b"\x3a\x00"),
    "shape-that-is-told": _model(
        lambda model: model.graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 9]))
    ),
    "second-graph": _honest_and(b"\x3a\x06\x0a\x04\x22\x02If"),
    "truncated": lambda bench: bench.use_onnx(graph().SerializeToString()[:-7]),
}
