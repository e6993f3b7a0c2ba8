"""Rewrites the graph that skl2onnx makes into the one that is served: one matrix in, probabilities or values out."""

from collections.abc import Sequence
from typing import Any

from release_platform.adapters.model_package import MATRIX

_TREES_SINCE = 5


def rewrite(model: Any, numbers: Sequence[str]) -> None:
    """Changes a graph in place, not its answers.

    Args:
        model: The `onnx.ModelProto`; its last output is the answer.
        numbers: The names of the inputs that hold numbers, in the order of the plan.
    """
    graph = model.graph
    _keep_answer(graph)
    if numbers and MATRIX not in {value.name for value in graph.input}:
        _take_matrix(graph, list(numbers))
    if any(node.op_type == "TreeEnsemble" for node in graph.node):
        _import(model, "ai.onnx.ml", _TREES_SINCE)


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
        split = helper.make_node("Split", [MATRIX], numbers, axis=1, num_outputs=len(numbers))
        graph.node.insert(0, split)
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
