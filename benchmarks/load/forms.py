"""How rows are written in a request and probabilities are read from the answer, in each protocol that is compared."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The body of a request or answer, with the headers that describe it."""

    data: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to ask for probabilities.

    Attributes:
        path: Where to; `{model}` stands for the model's name.
        write: Takes column names and rows of shape (n, n_columns).
        read: Returns probabilities of shape (n, n_classes) from the body of an answer.
    """

    path: str
    write: Callable[[Sequence[str], Table], Body]
    read: Callable[[Body], Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """The forms that a server is asked in: single rows, many rows as JSON, many as binary; None where it has none."""

    row: Form
    json: Form
    binary: Form | None = None
    by_setting: Mapping[str, Form | None] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_setting", {"row": self.row, "json": self.json, "binary": self.binary})


def http_request(path: str, port: int, body: Body) -> bytes:
    """Returns a whole HTTP/1.1 POST, as it goes over the wire."""
    headers = {"Host": f"127.0.0.1:{port}", **body.headers, "Content-Length": str(len(body.data))}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body.data


def _json(value: Any) -> Body:
    return Body(data=json.dumps(value, separators=(",", ":")).encode(), headers={"Content-Type": "application/json"})


def _key(name: str | None) -> Callable[[Body], Table]:
    def read(answer: Body) -> Table:
        said = json.loads(answer.data)
        return np.array(said if name is None else said[name], dtype=np.float64)

    return read


def _write_rows(names: Sequence[str], rows: Table) -> Body:
    return _json({"rows": [dict(zip(names, row, strict=True)) for row in rows.tolist()]})


def _write_columns(names: Sequence[str], rows: Table) -> Body:
    return _json({"columns": dict(zip(names, rows.T.tolist(), strict=True))})


def _write_split(names: Sequence[str], rows: Table) -> Body:
    return _json({"dataframe_split": {"columns": list(names), "data": rows.tolist()}})


def _write_lists(name: str) -> Callable[[Sequence[str], Table], Body]:
    return lambda _, rows: _json({name: rows.tolist()})


def _tensor(rows: Table, **more: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": "FP64", "shape": list(rows.shape), **more}


def _write_v2(_: Sequence[str], rows: Table) -> Body:
    outputs = [{"name": "predict_proba"}]
    return _json({"inputs": [_tensor(rows, data=rows.ravel().tolist())], "outputs": outputs})


def _write_v2_binary(_: Sequence[str], rows: Table) -> Body:
    data = rows.astype("<f8").tobytes()
    tensor = _tensor(rows, parameters={"binary_data_size": len(data)})
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return Body(data=header + data, headers=headers)


def read_v2(answer: Body) -> Table:
    """Returns the probabilities in an Open Inference answer: its first FP64 tensor of two dimensions.

    Raises:
        ValueError: It has none.
    """
    headers = {name.lower(): value for name, value in answer.headers.items()}
    end = int(headers.get(HEADER_LENGTH.lower(), len(answer.data)))
    for output in json.loads(answer.data[:end])["outputs"]:
        n_bytes = (output.get("parameters") or {}).get("binary_data_size", 0)
        if output["datatype"] == "FP64" and len(output["shape"]) == 2:
            flat = np.frombuffer(answer.data[end : end + n_bytes], "<f8") if n_bytes else output["data"]
            return np.array(flat, dtype=np.float64).reshape(output["shape"])
        end += n_bytes
    raise ValueError("the answer has no FP64 tensor of two dimensions")


NATIVE_ROWS = Form(path="/v1/models/{model}/predict", write=_write_rows, read=_key("probabilities"))
NATIVE_COLUMNS = Form(path="/v1/models/{model}/predict", write=_write_columns, read=_key("probabilities"))
MLFLOW_SPLIT = Form(path="/invocations", write=_write_split, read=_key("predictions"))
V1_INSTANCES = Form(path="/v1/models/{model}:predict", write=_write_lists("instances"), read=_key("predictions"))
V2_JSON = Form(path="/v2/models/{model}/infer", write=_write_v2, read=read_v2)
V2_BINARY = Form(path="/v2/models/{model}/infer", write=_write_v2_binary, read=read_v2)
LISTS = Form(path="/predict", write=_write_lists("rows"), read=_key("probabilities"))
BARE_LISTS = Form(path="/predict", write=_write_lists("rows"), read=_key(None))
