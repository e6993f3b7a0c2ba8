"""Checks an ONNX file, default-deny, before the runtime sees it.

A walk over the protobuf's own fields, so serving needs no ONNX library: whatever is not known here is refused. So no
file is ever read for external data, no subgraph runs (loops), no custom operator is looked up, and no operator is there
that sizes its output by a number. Trees are walked first (`onnx_trees`), and no shape is told that could be untrue.
"""

from collections.abc import Mapping

from release_platform.adapters.onnx_trees import check_trees
from release_platform.adapters.protobuf import Field, fields, text, varints

_OPERATORS = {
    "": "Abs Add And ArgMax ArgMin Cast Clip Concat CumSum Div Equal Exp Flatten Gather GatherElements Greater "
    "GreaterOrEqual Identity IsNaN Less LessOrEqual Log MatMul Max Min Mul Neg Not Or Pow Reciprocal ReduceLogSumExp "
    "ReduceMax ReduceMean ReduceSum ReduceSumSquare Relu Reshape Sigmoid Sign Softmax Sqrt Squeeze Sub Sum Tanh "
    "Transpose Unsqueeze Where",
    "ai.onnx.ml": "ArrayFeatureExtractor LabelEncoder OneHotEncoder TreeEnsemble",
}
_ALLOWED = {(domain, name) for domain, names in _OPERATORS.items() for name in names.split()}
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_MAXIMUM_NODES = 10_000

# Number of each field that a message may have; those with a message inside name its kind.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {1: "", 2: "", 3: "", 4: "", 5: "", 6: "", 7: "graph", 8: "opset", 14: "plain"},
    "opset": {1: "", 2: ""},
    "graph": {1: "node", 2: "", 5: "tensor", 10: "", 11: "plain", 12: "plain"},
    "node": {1: "", 2: "", 3: "", 4: "", 5: "attribute", 6: "", 7: ""},
    "attribute": {1: "", 2: "", 3: "", 4: "", 5: "tensor", 7: "", 8: "", 9: "", 10: "tensor", 13: "", 20: ""},
    "tensor": {1: "", 2: "", 4: "", 5: "", 6: "", 7: "", 8: "", 9: "", 10: "", 11: "", 12: ""},
}


def check_onnx(data: bytes) -> None:
    """Refuses a file that holds anything but a plain graph of known operators.

    Raises:
        ValueError: It does, or it is no ONNX file.
    """
    n_nodes = [0]
    _check("model", memoryview(data), n_nodes)
    if not n_nodes[0]:
        raise ValueError("it holds no graph")


def _check(kind: str, data: memoryview, n_nodes: list[int]) -> None:
    known, found = _MESSAGES[kind], list(fields(data))
    operator = ""
    if kind == "node":
        n_nodes[0] += 1
        operator = _check_node(found, n_nodes[0])
    for number, value in found:
        if number not in known:
            raise ValueError(f"a {kind} holds field {number}, which is not loaded")
        below = known[number]
        if below and not isinstance(value, memoryview):
            raise ValueError(f"field {number} of a {kind} is of another kind")
        if operator == "TreeEnsemble" and below == "attribute":
            continue  # `check_trees` reads it
        if below and below != "plain" and isinstance(value, memoryview):
            _check(below, value, n_nodes)
    match kind:
        case "model":
            if sum(number == 7 for number, _ in found) != 1:
                raise ValueError("it holds no graph, or graphs that would be merged")
        case "graph":
            check_trees(data)
        case "tensor":
            _check_tensor(found, len(data))
        case "opset":
            _check_domain(found)


def _check_node(found: list[Field], count: int) -> str:
    operators = [text(value) for number, value in found if number == 4]
    domains = [text(value) for number, value in found if number == 7] or [""]
    if len(operators) != 1 or len(domains) != 1 or (domains[0], operators[0]) not in _ALLOWED:
        raise ValueError(f"the operator {'.'.join((*domains, *operators)):.80} is not loaded")
    if count > _MAXIMUM_NODES:
        raise ValueError(f"more than {_MAXIMUM_NODES:,} operators")
    return operators[0]


def _check_domain(found: list[Field]) -> None:
    for number, value in found:
        if number == 1 and text(value) not in _DOMAINS:
            raise ValueError(f"operators of the domain {text(value)[:80]!a} are not loaded")


def _check_tensor(found: list[Field], n_bytes: int) -> None:
    count = 1
    for number, value in found:
        if number == 1:
            for length in [value] if isinstance(value, int) else varints(value):
                count *= length
                if length >= 2**63 or count > n_bytes:
                    raise ValueError("a tensor says that it is larger than it is")
