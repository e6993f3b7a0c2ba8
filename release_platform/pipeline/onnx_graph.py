"""Converts a pipeline to the ONNX graph that is served: one matrix in, probabilities or values out."""

from collections.abc import Mapping
from typing import Any

from release_platform.adapters.model_package import MATRIX
from release_platform.domain.features import ColumnType
from release_platform.pipeline.onnx_imputer import use_double_imputer
from release_platform.pipeline.onnx_logistic import use_double_logistic
from release_platform.pipeline.onnx_one_hot import use_double_one_hot
from release_platform.pipeline.onnx_trees import use_double_trees

_TREES_SINCE = 5


def to_onnx(pipeline: Any, types: Mapping[str, ColumnType]) -> bytes:
    """Returns an ONNX file that answers as a fitted pipeline does, in double precision.

    Args:
        pipeline: Takes a frame of these features.
        types: The type of each feature, in the plan's order.

    Raises:
        Exception: Whatever skl2onnx or a converter says of what it cannot convert.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    use_double_imputer()
    use_double_logistic()
    use_double_one_hot()
    use_double_trees()
    kinds = {ColumnType.CATEGORY: StringTensorType}
    inputs = [(name, kinds.get(kind, DoubleTensorType)([None, 1])) for name, kind in types.items()]
    options = {id(pipeline): {"zipmap": False}} if hasattr(pipeline, "classes_") else {}
    model = convert_sklearn(pipeline, initial_types=inputs, options=options)
    _keep_answer(model.graph)
    numbers = [name for name, kind in types.items() if kind is not ColumnType.CATEGORY]
    if numbers and MATRIX not in types:
        _take_matrix(model.graph, numbers)
    if any(node.op_type == "TreeEnsemble" for node in model.graph.node):
        _import(model, "ai.onnx.ml", _TREES_SINCE)
    return bytes(model.SerializeToString())


def _keep_answer(graph: Any) -> None:
    """Removes every output but the last, and what only they need: a label costs as much as a small model."""
    del graph.output[:-1]
    wanted = {graph.output[0].name}
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if wanted.isdisjoint(node.output):
            del graph.node[place]
        else:
            wanted.update(node.input)
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in wanted:
            del graph.initializer[place]


def _take_matrix(graph: Any, numbers: list[str]) -> None:
    """Makes the inputs that hold numbers the columns of one: each costs a microsecond or so per call."""
    from onnx import TensorProto, helper

    users = [node for node in graph.node if not set(numbers).isdisjoint(node.input)]
    if len(users) == 1 and users[0].op_type == "Concat" and list(users[0].input) == numbers:
        (joined,) = users[0].output
        graph.node.remove(users[0])
        for node in graph.node:
            node.input[:] = [MATRIX if name == joined else name for name in node.input]
    else:
        for place, name in enumerate(numbers):
            graph.initializer.append(helper.make_tensor(f"column of {name}", TensorProto.INT64, [1], [place]))
            graph.node.insert(0, helper.make_node("Gather", [MATRIX, f"column of {name}"], [name], axis=1))
    texts = [value for value in graph.input if value.name not in numbers]
    matrix = helper.make_tensor_value_info(MATRIX, TensorProto.DOUBLE, [None, len(numbers)])
    del graph.input[:]
    graph.input.extend([matrix, *texts])


def _import(model: Any, domain: str, version: int) -> None:
    for imported in model.opset_import:
        if imported.domain == domain:
            imported.version = version
            return
    model.opset_import.add(domain=domain, version=version)
