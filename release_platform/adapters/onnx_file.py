"""Checks an ONNX file, default-deny, before the runtime sees it.

A walk over the protobuf's own fields, so serving needs no ONNX library: whatever is not known here is refused. So no
file is ever read for external data, no subgraph runs (loops), no custom operator is looked up, and no operator is there
that sizes its output by a number, or walks a tree without looking.
"""

from collections.abc import Iterator, Mapping

_OPERATORS = {
    "": "Abs Add And ArgMax ArgMin Cast Clip Concat CumSum Div Equal Exp Flatten Gather GatherElements Greater "
    "GreaterOrEqual Identity IsNaN Less LessOrEqual Log MatMul Max Min Mul Neg Not Or Pow Reciprocal ReduceLogSumExp "
    "ReduceMax ReduceMean ReduceSum ReduceSumSquare Relu Reshape Sigmoid Sign Softmax Sqrt Squeeze Sub Sum Tanh "
    "Transpose Unsqueeze Where",
    "ai.onnx.ml": "ArrayFeatureExtractor LabelEncoder OneHotEncoder",
}
_ALLOWED = {(domain, name) for domain, names in _OPERATORS.items() for name in names.split()}
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_MAXIMUM_NODES = 10_000

# Number of each field that a message may have; those with a message inside name its kind.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {1: "", 2: "", 3: "", 4: "", 5: "", 6: "", 7: "graph", 8: "opset", 14: "plain"},
    "opset": {1: "", 2: ""},
    "graph": {1: "node", 2: "", 5: "tensor", 10: "", 11: "plain", 12: "plain", 13: "plain"},
    "node": {1: "", 2: "", 3: "", 4: "", 5: "attribute", 6: "", 7: ""},
    "attribute": {1: "", 2: "", 3: "", 4: "", 5: "tensor", 7: "", 8: "", 9: "", 10: "tensor", 13: "", 20: ""},
    "tensor": {1: "", 2: "", 4: "", 5: "", 6: "", 7: "", 8: "", 9: "", 10: "", 11: "", 12: ""},
}

Field = tuple[int, int | memoryview]


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
    known = _MESSAGES[kind]
    fields = []
    for number, value in _fields(data):
        if number not in known:
            raise ValueError(f"a {kind} holds field {number}, which is not loaded")
        below = known[number]
        if below and not isinstance(value, memoryview):
            raise ValueError(f"field {number} of a {kind} is of another kind")
        if below and below != "plain" and isinstance(value, memoryview):
            _check(below, value, n_nodes)
        fields.append((number, value))
    if kind == "node":
        n_nodes[0] += 1
        _check_node(fields, n_nodes[0])
    elif kind == "tensor":
        _check_tensor(fields, len(data))
    elif kind == "opset":
        _check_domain(fields)


def _check_node(fields: list[Field], count: int) -> None:
    operators = [_text(value) for number, value in fields if number == 4]
    domains = [_text(value) for number, value in fields if number == 7] or [""]
    if len(operators) != 1 or len(domains) != 1 or (domains[0], operators[0]) not in _ALLOWED:
        raise ValueError(f"the operator {'.'.join((*domains, *operators)):.80} is not loaded")
    if count > _MAXIMUM_NODES:
        raise ValueError(f"more than {_MAXIMUM_NODES:,} operators")


def _check_domain(fields: list[Field]) -> None:
    for number, value in fields:
        if number == 1 and _text(value) not in _DOMAINS:
            raise ValueError(f"operators of the domain {_text(value)[:80]!a} are not loaded")


def _check_tensor(fields: list[Field], n_bytes: int) -> None:
    count = 1
    for number, value in fields:
        if number == 1:
            for length in [value] if isinstance(value, int) else _varints(value):
                count *= length
                if length >= 2**63 or count > n_bytes:
                    raise ValueError("a tensor says that it is larger than it is")


def _text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise ValueError("a number stands where text should")
    return bytes(value).decode()


def _varints(data: memoryview) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _fields(data: memoryview) -> Iterator[Field]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        else:
            length = {1: 8, 5: 4}.get(wire, -1)
        if length < 0 or place + length > len(data):
            raise ValueError("it is no ONNX file")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it is no ONNX file")
