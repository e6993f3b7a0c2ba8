"""The bodies of the Open Inference Protocol: a JSON object, and behind it the tensors that are in bytes."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import orjson

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.features import Inputs
from release_platform.domain.prediction import Predictions
from serving.doors import Ask, Reply
from serving.errors import InvalidInput, MalformedBody
from serving.forms import Form, check_count
from serving.inference_requests import GivenTensor, InferenceRequest, read_request, request_of
from serving.limits import Limits
from serving.models import LoadedModel
from serving.parsing import parse_leniently
from serving.route_keys import shared_key
from serving.routing import KEY_MEMBER
from serving.tensors import Values, datatype_of_labels, decode_bytes, decode_json, encode_bytes, encode_json

OCTETS = b"application/octet-stream"
JSON_LENGTH = b"inference-header-content-length"
PREDICT = "predict"
PROBABILITIES = "predict_proba"
_LONGEST_LENGTH = 19  # digits
_REMEMBERED_BYTES = 2048
_DATATYPES: WeakKeyDictionary[ModelPackage, dict[str, str]] = WeakKeyDictionary()

# A client that sends its values in bytes sends the same few JSON objects before them again and again.
_remembered_request = lru_cache(maxsize=256)(read_request)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request says of its answer.

    Attributes:
        id: The request's own id, to be said again; None where it has none.
        outputs: The outputs, in order: name, and whether in bytes.
    """

    id: str | None
    outputs: tuple[tuple[str, bool], ...]


def read_inference(body: bytes, json_length: bytes | None, loaded: LoadedModel, limits: Limits) -> Ask:
    """Returns what a body asks.

    Args:
        body: The JSON object, and behind it the bytes of the tensors that have a `binary_data_size`, in order.
        json_length: The header that says how long the JSON object is; None when it is all of the body.
        loaded: The version that is asked.
        limits: What may be given.

    Raises:
        RequestProblem: It is not what the protocol allows, or not what the model takes.
    """
    length = len(body) if json_length is None else _json_length(json_length, len(body))
    text, rest = body[:length], memoryview(body)[length:]
    read = _remembered_request if rest and length <= _REMEMBERED_BYTES else read_request
    # Bytes may hold any NaN, and what does not fit FP32 becomes an infinity, which is refused by name.
    with np.errstate(invalid="ignore", over="ignore"):
        try:
            return _ask(read(text), rest, loaded, limits)
        except MalformedBody:
            with suppress(ValueError):  # NaN, 1e999 and lone surrogates have a tensor and a row
                _ask(request_of(parse_leniently(text)), rest, loaded, limits)
            raise


def read_key(body: bytes, json_length: bytes | None, limits: Limits) -> str | None:
    """Returns the key that a body is routed by: the parameter `route_key`, or else the tensor of that name, or None.

    Raises:
        RequestProblem: It is not what the protocol allows, or what is there is no key.
    """
    length = len(body) if json_length is None else _json_length(json_length, len(body))
    request, begin = read_request(body[:length]), length
    if request.route_key:
        return request.route_key
    for tensor in request.tensors:
        end = begin + (tensor.n_bytes or 0)
        if tensor.name == KEY_MEMBER:
            return shared_key(_decoded(tensor, memoryview(body)[begin:end], 1, limits).tolist())
        begin = end
    return None


def write_inference(ask: Ask, loaded: LoadedModel, predictions: Predictions, prediction_id: str) -> Reply:
    """Returns the answer: JSON, or a JSON object and behind it the outputs that were wanted in bytes."""
    wanted: Wanted = ask.options
    chunks: list[bytes] = []
    answer: dict[str, Any] = {"model_name": loaded.model, "model_version": loaded.version}
    if wanted.id is not None:
        answer["id"] = wanted.id
    answer["parameters"] = {"digest": loaded.digest, "epoch": loaded.epoch, "prediction_id": prediction_id}
    datatypes = output_datatypes(loaded.package)
    answer["outputs"] = [
        _output(name, datatypes[name], predictions, chunks if binary else None) for name, binary in wanted.outputs
    ]
    text = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not chunks:
        return Reply(text)
    return Reply(b"".join((text, *chunks)), OCTETS, ((JSON_LENGTH, b"%d" % len(text)),))


def output_datatypes(package: ModelPackage) -> dict[str, str]:
    """Returns the datatype of each output of a model."""
    known = _DATATYPES.get(package)
    if known is None:
        labels = package.classes
        known = {PREDICT: datatype_of_labels(labels), PROBABILITIES: "FP64"} if labels else {PREDICT: "FP64"}
        _DATATYPES[package] = known
    return known


def _output(name: str, datatype: str, predictions: Predictions, chunks: list[bytes] | None) -> dict[str, Any]:
    values = predictions.probabilities if name == PROBABILITIES else predictions.values
    assert values is not None
    output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": values.shape}
    if chunks is None:
        output["data"] = encode_json(datatype, values)
    else:
        chunks.append(encode_bytes(datatype, values))
        output["parameters"] = {"binary_data_size": len(chunks[-1])}
    return output


def _json_length(header: bytes, n_bytes: int) -> int:
    if not header.isdigit() or len(header) > _LONGEST_LENGTH:
        given = header.decode("latin-1")
        raise InvalidInput(f"the header Inference-Header-Content-Length is no number of bytes: '{given:.40}'")
    length = int(header)
    if length > n_bytes:
        raise InvalidInput(f"Inference-Header-Content-Length is {length:,}, but the body has {n_bytes:,} bytes")
    return length


def _ask(request: InferenceRequest, rest: memoryview, loaded: LoadedModel, limits: Limits) -> Ask:
    outputs = _outputs(request, output_datatypes(loaded.package))
    return Ask(_inputs(request.tensors, rest, loaded.form, limits), Wanted(request.id, outputs))


def _outputs(request: InferenceRequest, known: dict[str, str]) -> tuple[tuple[str, bool], ...]:
    for name in request.outputs:
        if name not in known:
            raise InvalidInput(f"there is no output '{name:.100}'; there are: {', '.join(known)}", field=name)
    return tuple(request.outputs.items()) or tuple((name, request.binary) for name in known)


def _inputs(tensors: tuple[GivenTensor, ...], rest: memoryview, form: Form, limits: Limits) -> Inputs:
    sizes = sum(tensor.n_bytes or 0 for tensor in tensors)
    if sizes != len(rest):
        raise InvalidInput(f"{len(rest):,} bytes follow the JSON, but binary_data_size says {sizes:,} in all")
    arrays: dict[str, Values] = {}
    begin = 0
    for tensor in tensors:
        end = begin + (tensor.n_bytes or 0)
        arrays[tensor.name] = _decoded(tensor, rest[begin:end], len(form.names), limits)
        begin = end
    if KEY_MEMBER in arrays and KEY_MEMBER not in form.names and len(tensors) > 1:
        shared_key(arrays.pop(KEY_MEMBER).tolist())
        tensors = tuple(tensor for tensor in tensors if tensor.name != KEY_MEMBER)
    first = tensors[0]
    if len(tensors) == 1 and len(first.shape) == 2 and (first.shape[1] > 1 or first.name not in form.names):
        return form.from_matrix(arrays[first.name].reshape(first.shape), limits)
    for tensor in tensors:
        if tensor.shape[1:] not in {(), (1,)}:
            detail = f"'{tensor.name:.100}' has {tensor.shape[1]:,} columns; send each input as a tensor of its own,"
            raise InvalidInput(f"{detail} or all of them in a single one", field=tensor.name)
    return form.from_arrays(arrays, limits)


def _decoded(tensor: GivenTensor, data: memoryview, n_inputs: int, limits: Limits) -> Values:
    """Returns the values of a tensor, flat, once it is known that they are no more than the model takes."""
    name, shape = tensor.name, tensor.shape
    if len(shape) == 2 and shape[1] not in {1, n_inputs}:
        detail = f"'{name:.100}' has {shape[1]:,} columns; send one, or all {n_inputs} that the model takes"
        raise InvalidInput(detail, field=name)
    check_count(shape[0], limits, name)
    if tensor.n_bytes is None:
        return decode_json(tensor.datatype, tensor.data, shape, name=name)
    return decode_bytes(tensor.datatype, data, shape, name=name)
