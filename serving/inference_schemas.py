"""What `/docs` shows of the Open Inference Protocol. Bodies are read by `inference_requests`."""

from typing import Any

from pydantic import BaseModel, Field

from serving.schemas import Label


class InferTensor(BaseModel):
    """An input or output of a model."""

    name: str
    datatype: str = Field(description="FP64, INT64, BOOL or BYTES.")
    shape: list[int] = Field(description="-1 stands for the number of rows.")


class InferMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str] = Field(description="Those that answer: the live one and, if it is warm, the one before it.")
    platform: str = Field(examples=["onnx_onnxv1", "sklearn_skops"])
    inputs: list[InferTensor]
    outputs: list[InferTensor]


class InferServer(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class InferReady(BaseModel):
    """That a model answers."""

    name: str
    ready: bool


class InferOutput(InferTensor):
    """A tensor of an answer."""

    data: list[Label] | None = Field(None, description="Row by row; absent when it is in bytes behind the JSON.")
    parameters: dict[str, int] | None = Field(None, description="`binary_data_size`, when it is in bytes.")


class InferAnswer(BaseModel):
    """Predictions as tensors."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str | int] = Field(description="`digest`, `epoch` and `prediction_id`.")
    outputs: list[InferOutput]


_PARAMETERS = {"type": "object"}
_INFER_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
                    "datatype": {"type": "string"},
                    "parameters": _PARAMETERS,
                    "data": {"type": "array"},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
            },
        },
    },
}

INFER_BODY: dict[str, Any] = {
    "required": True,
    "description": "A tensor for each input, or one of shape [rows, inputs]. In bytes: the binary tensor extension.",
    "content": {
        "application/json": {
            "schema": _INFER_REQUEST,
            "examples": {
                "one tensor": {
                    "value": {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]}]}
                },
                "a tensor for each input": {
                    "value": {
                        "inputs": [
                            {"name": "age", "shape": [2], "datatype": "INT64", "data": [41, None]},
                            {"name": "city", "shape": [2], "datatype": "BYTES", "data": ["Bern", "Basel"]},
                        ]
                    }
                },
            },
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
