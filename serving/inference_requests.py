"""The JSON object of a request of the Open Inference Protocol, as far as it can be judged without the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.errors import InvalidInput
from serving.forms import check_route_key, kind
from serving.parsing import parse
from serving.tensors import DATATYPES, shown


@dataclass(frozen=True, slots=True)
class GivenTensor:
    """An input.

    Attributes:
        name: What it is called.
        datatype: One of `DATATYPES`.
        shape: One or two lengths, none negative.
        data: Its values in JSON, not looked at yet; None where they are in bytes.
        n_bytes: How many bytes it has behind the JSON object; None where it has none there.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    n_bytes: int | None


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What is asked.

    Attributes:
        id: The request's own id; None where it has none.
        tensors: The inputs, at least one, each name once.
        outputs: The wanted outputs, each name once, and whether in bytes; empty for all.
        binary: Whether outputs are wanted in bytes where nothing else is said.
        route_key: The key that it is routed by; None where it has none.
    """

    id: str | None
    tensors: tuple[GivenTensor, ...]
    outputs: Mapping[str, bool]
    binary: bool
    route_key: str | None


def read_request(text: bytes) -> InferenceRequest:
    """Returns what a JSON text asks.

    Members and parameters that the protocol does not know are left out, as its extensions want it; so are those that
    change no answer here: `priority`, `timeout` and `sequence_*`.

    Raises:
        RequestProblem: It is not JSON, or not such a request.
    """
    return request_of(parse(text, _n_members))


def request_of(value: Any) -> InferenceRequest:
    """Returns what a JSON value asks.

    Raises:
        InvalidInput: It is not such a request.
    """
    if not isinstance(value, dict):
        raise InvalidInput(f"the body is {kind(value)}, not an object with 'inputs'")
    own_id = value.get("id")
    if own_id is not None and not isinstance(own_id, str):
        raise InvalidInput(f"'id' is {kind(own_id)}, not text", field="id")
    parameters = _parameters(value, "the request")
    check_route_key(parameters.get("route_key"))
    binary = _flag(parameters, "binary_data_output", default=False)
    outputs = _outputs(value.get("outputs"), binary=binary)
    tensors: dict[str, GivenTensor] = {}
    for one in _objects(value.get("inputs"), "inputs"):
        tensor = _tensor(one)
        if tensor.name in tensors:
            raise InvalidInput(f"the tensor '{tensor.name:.100}' is given twice", field=tensor.name)
        tensors[tensor.name] = tensor
    return InferenceRequest(own_id, tuple(tensors.values()), outputs, binary, parameters.get("route_key"))


def _n_members(value: Any) -> int:
    """Counts the members of a well-formed request."""
    if not isinstance(value, dict):
        return 0
    tensors = [one for name in ("inputs", "outputs") for one in _only_objects(value.get(name))]
    within = [one.get("parameters") for one in (value, *tensors)]
    return len(value) + sum(map(len, tensors)) + sum(len(inner) for inner in within if isinstance(inner, dict))


def _only_objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _outputs(given: Any, *, binary: bool) -> dict[str, bool]:
    wanted: dict[str, bool] = {}
    for one in _objects(given, "outputs") if given else ():
        name = _name(one, "outputs")
        if name in wanted:
            raise InvalidInput(f"the output '{name:.100}' is wanted twice", field=name)
        parameters = _parameters(one, f"'{name:.100}'")
        if "classification" in parameters:
            detail = f"'{name:.100}': classification is not supported; ask for the probability of each class"
            raise InvalidInput(detail, field=name)
        wanted[name] = _flag(parameters, "binary_data", default=binary)
    return wanted


def _tensor(one: Mapping[str, Any]) -> GivenTensor:
    name = _name(one, "inputs")
    datatype, data = one.get("datatype"), one.get("data")
    if datatype not in DATATYPES:
        detail = f"the datatype of '{name:.100}' is {shown(datatype)}; there are: {', '.join(DATATYPES)}"
        raise InvalidInput(detail, field=name)
    n_bytes = _parameters(one, f"'{name:.100}'").get("binary_data_size")
    if (n_bytes is None) is (data is None):
        detail = f"'{name:.100}' has {'neither' if data is None else 'both'} 'data' and a 'binary_data_size'"
        raise InvalidInput(f"{detail}; send one of them", field=name)
    if n_bytes is not None and (type(n_bytes) is not int or n_bytes < 0):
        detail = f"the binary_data_size of '{name:.100}' is {shown(n_bytes)}, not a number of bytes"
        raise InvalidInput(detail, field=name)
    return GivenTensor(name, datatype, _shape(one.get("shape"), name), data, n_bytes)


def _shape(given: Any, name: str) -> tuple[int, ...]:
    if isinstance(given, list) and 1 <= len(given) <= 2 and all(type(n) is int and n >= 0 for n in given):
        return tuple(given)
    detail = f"the shape of '{name:.100}' is {shown(given)}; send [rows], [rows, 1] or [rows, columns]"
    raise InvalidInput(detail, field=name)


def _objects(given: Any, member: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(given, list) or not given or not all(isinstance(one, dict) for one in given):
        raise InvalidInput(f"'{member}' is no array of at least one object", field=member)
    return given


def _name(one: Mapping[str, Any], member: str) -> str:
    name = one.get("name")
    if not isinstance(name, str):
        raise InvalidInput(f"one of '{member}' has no name", field=member)
    return name


def _parameters(one: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
    given = one.get("parameters")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidInput(f"the parameters of {whose} are {kind(given)}, not an object", field="parameters")
    for name in given:
        if name.startswith("shared_memory_"):
            raise InvalidInput(f"{whose}: shared memory is not supported; send the values", field=name)
    return given


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidInput(f"'{name}' is {kind(value)}, not true or false", field=name)
    return value
