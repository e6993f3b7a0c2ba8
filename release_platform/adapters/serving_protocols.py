"""Every protocol that the servers speak, as a client of it would: how golden rows are asked, how an answer is read.

| protocol | what an answer tells |
|---|---|
| `rows`, `columns`, `version route` | labels, probabilities or values, classes; model, version, digest, epoch, engine |
| `arrow` | the same, labels of several kinds as text |
| `dataframe_split`, `dataframe_records`, `instances`, `inputs`, `csv` | probabilities or values |
| `v2 json`, `v2 binary` | labels, probabilities or values; model, version, digest, epoch |

Version, digest and epoch are in the headers of all of them. No two share a way to write numbers or to read them but
where the protocols themselves do.
"""

import csv
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from release_platform.domain.features import ColumnType, Input, as_column
from release_platform.domain.verification import IN_HEADERS, Expected, Told

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
OCTETS = "application/octet-stream"
JSON_LENGTH = "inference-header-content-length"
_LENGTH = struct.Struct("<I")
_WHOLE = range(-(2**63), 2**63)
_DATATYPES = {ColumnType.NUMBER: "FP64", ColumnType.INTEGER: "INT64", ColumnType.BOOLEAN: "BOOL"}
_DTYPES = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}

Headers = Mapping[str, str]


class CannotAsk(Exception):
    """This protocol cannot say these rows, or this machine cannot speak it; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request.

    Attributes:
        path: Where it is posted to.
        body: Its bytes.
        media_type: Their content type.
        headers: Further headers.
    """

    path: str
    body: bytes
    media_type: str = JSON
    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One way to ask a server.

    Attributes:
        name: What it is called in reports.
        ask: Returns the request for the golden rows. Raises `CannotAsk`.
        read: Returns what the bytes and headers of an answer with status 200 say. Raises KeyError, ValueError or
            TypeError where they are no answer of the protocol.
    """

    name: str
    ask: Callable[[Expected], Asked]
    read: Callable[[bytes, Headers, Expected], Told]


def _asked(path: str, expected: Expected, body: bytes, media_type: str = JSON, **headers: str) -> Asked:
    model, version = quote(expected.model, safe=""), quote(expected.version, safe="")
    return Asked(path=path.format(model=model, version=version), body=body, media_type=media_type, headers=headers)


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _in_headers(headers: Headers) -> dict[str, str]:
    return {name: headers[f"x-model-{name}"] for name in IN_HEADERS if f"x-model-{name}" in headers}


def _in_body(answer: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    return {name: str(answer[name]) for name in names}


def _numbers(value: object) -> npt.NDArray[np.float64]:
    return np.array(value, dtype=np.float64)


# Our own: /v1/models/{model}/predict


def _ask_rows(expected: Expected) -> Asked:
    return _asked("/v1/models/{model}/predict", expected, _json({"rows": expected.golden.rows}))


def _ask_columns(expected: Expected, path: str = "/v1/models/{model}/predict") -> Asked:
    return _asked(path, expected, _json({"columns": dict(expected.golden.columns)}))


def _read_native(body: bytes, headers: Headers, expected: Expected) -> Told:
    answer = json.loads(body)
    classified = bool(expected.golden.classes)
    return Told(
        body=_in_body(answer, ("model", "version", "digest", "epoch", "engine")),
        headers=_in_headers(headers),
        numbers=_numbers(answer["probabilities" if classified else "predictions"]),
        labels=answer["predictions"] if classified else None,
        classes=[str(label) for label in answer["classes"]] if classified else None,
    )


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise CannotAsk("pyarrow is not installed here") from None
    return pyarrow


def _ask_arrow(expected: Expected) -> Asked:
    pa = _pyarrow()
    golden = expected.golden
    table = pa.table({one.name: _arrow_column(pa, one, golden.columns[one.name]) for one in golden.inputs})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _asked("/v1/models/{model}/predict", expected, bytes(sink.getvalue()), ARROW)


def _arrow_column(pa: Any, column: Input, values: Sequence[Any]) -> Any:
    if column.type is ColumnType.TIMESTAMP:
        return pa.array(as_column(column, values), pa.timestamp("us"))
    kinds = {ColumnType.BOOLEAN: pa.bool_(), ColumnType.CATEGORY: pa.string()}
    whole = column.type is ColumnType.INTEGER and _are_whole(values)
    return pa.array(values, kinds.get(column.type, pa.int64() if whole else pa.float64()))


def _are_whole(values: Sequence[Any]) -> bool:
    return all(value is None or (type(value) is int and value in _WHOLE) for value in values)


def _read_arrow(body: bytes, headers: Headers, expected: Expected) -> Told:
    pa = _pyarrow()
    if headers.get("content-type") != ARROW:
        raise ValueError(f"it is {headers.get('content-type')}, not {ARROW}")
    table = pa.ipc.open_stream(body).read_all()
    prediction, *of_classes = table.column_names
    answer = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    classified = bool(expected.golden.classes)
    columns = [_numbers(table.column(name).to_numpy()) for name in (of_classes if classified else [prediction])]
    return Told(
        body=_in_body(answer, ("model", "version", "digest", "epoch", "engine")),
        headers=_in_headers(headers),
        numbers=np.column_stack(columns) if classified else columns[0],
        labels=table.column(prediction).to_pylist() if classified else None,
        as_text=table.schema.field(prediction).type == pa.string(),
        classes=[name.removeprefix("probability_") for name in of_classes] if classified else None,
    )


# MLflow's scoring protocol: /v1/models/{model}/invocations


def _ask_scoring(expected: Expected, member: str, form: Callable[[Expected], object]) -> Asked:
    return _asked("/v1/models/{model}/invocations", expected, _json({member: form(expected)}))


def _split(expected: Expected) -> object:
    columns = expected.golden.columns
    data = [list(values) for values in zip(*columns.values(), strict=True)]
    return {"columns": list(columns), "data": data}


def _ask_csv(expected: Expected) -> Asked:
    columns = expected.golden.columns
    if any(value == "" for values in columns.values() for value in values):
        raise CannotAsk("CSV cannot tell an empty text from a missing value")
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # so that either is quoted in a text
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    return _asked("/v1/models/{model}/invocations", expected, text.getvalue().encode(), CSV)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_scoring(body: bytes, headers: Headers, expected: Expected) -> Told:
    return Told(headers=_in_headers(headers), numbers=_numbers(json.loads(body)["predictions"]))


# The Open Inference Protocol, version 2: /v2/models/{model}/infer


def _ask_v2_json(expected: Expected) -> Asked:
    golden = expected.golden
    tensors = [_tensor(one, golden.columns[one.name]) for one in golden.inputs]
    return _asked("/v2/models/{model}/infer", expected, _json({"inputs": tensors}))


def _ask_v2_binary(expected: Expected) -> Asked:
    golden = expected.golden
    tensors, chunks = [], []
    for tensor in (_tensor(one, golden.columns[one.name]) for one in golden.inputs):
        chunk = _packed(tensor["datatype"], tensor["data"])
        if chunk is not None:
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": len(chunk)}
            chunks.append(chunk)
        tensors.append(tensor)
    text = _json({"inputs": tensors, "parameters": {"binary_data_output": True}})
    body = b"".join((text, *chunks))
    return _asked("/v2/models/{model}/infer", expected, body, OCTETS, **{JSON_LENGTH: str(len(text))})


def _tensor(column: Input, values: Sequence[Any]) -> dict[str, Any]:
    datatype = _DATATYPES.get(column.type, "BYTES")
    if datatype == "INT64" and (None in values or not _are_whole(values)):
        datatype = "FP64"
    return {"name": column.name, "datatype": datatype, "shape": [len(values)], "data": list(values)}


def _packed(datatype: str, values: Sequence[Any]) -> bytes | None:
    """Returns values in bytes; None where one is missing that bytes cannot say, so that the tensor stays in JSON."""
    if datatype == "FP64":
        return np.array(values, dtype="<f8").tobytes()
    if None in values:
        return None
    if datatype == "BYTES":
        return b"".join(_LENGTH.pack(len(text.encode())) + text.encode() for text in values)
    return np.array(values, dtype=_DTYPES[datatype]).tobytes()


def _read_v2(body: bytes, headers: Headers, expected: Expected) -> Told:
    length = int(headers.get(JSON_LENGTH, len(body)))
    answer, rest = json.loads(body[:length]), memoryview(body)[length:]
    outputs: dict[str, Any] = {}
    for output in answer["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        values = output["data"] if size is None else _unpacked(output["datatype"], rest[:size])
        rest = rest[size or 0 :]
        outputs[output["name"]] = (output["datatype"], values, output["shape"])
    if len(rest):
        raise ValueError(f"{len(rest)} bytes follow its last tensor")
    datatype, labels, _ = outputs["predict"]
    classified = bool(expected.golden.classes)
    _, numbers, shape = outputs["predict_proba" if classified else "predict"]
    return Told(
        body={"model": answer["model_name"], "version": answer["model_version"]}
        | _in_body(answer["parameters"], ("digest", "epoch")),
        headers=_in_headers(headers),
        numbers=_numbers(numbers).reshape(shape),
        labels=labels if classified else None,
        as_text=datatype == "BYTES",
    )


def _unpacked(datatype: str, data: memoryview) -> list[Any]:
    if datatype != "BYTES":
        values: list[Any] = np.frombuffer(data, _DTYPES[datatype]).tolist()
        return values
    texts: list[Any] = []
    begin = 0
    while begin < len(data):
        end = begin + _LENGTH.size + _LENGTH.unpack_from(data, begin)[0]
        texts.append(str(data[begin + _LENGTH.size : end], "utf-8"))
        begin = end
    return texts


def _scoring(member: str, form: Callable[[Expected], object]) -> Protocol:
    return Protocol(name=member, ask=partial(_ask_scoring, member=member, form=form), read=_read_scoring)


PROTOCOLS = (
    Protocol(name="rows", ask=_ask_rows, read=_read_native),
    Protocol(name="columns", ask=_ask_columns, read=_read_native),
    Protocol(
        name="version route",
        ask=partial(_ask_columns, path="/v1/models/{model}/versions/{version}/predict"),
        read=_read_native,
    ),
    Protocol(name="arrow", ask=_ask_arrow, read=_read_arrow),
    _scoring("dataframe_split", _split),
    _scoring("dataframe_records", lambda expected: expected.golden.rows),
    _scoring("instances", lambda expected: expected.golden.rows),
    _scoring("inputs", lambda expected: dict(expected.golden.columns)),
    Protocol(name="csv", ask=_ask_csv, read=_read_scoring),
    Protocol(name="v2 json", ask=_ask_v2_json, read=_read_v2),
    Protocol(name="v2 binary", ask=_ask_v2_binary, read=_read_v2),
)
"""All of them; the first is asked over several connections."""
