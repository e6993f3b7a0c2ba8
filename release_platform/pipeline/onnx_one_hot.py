"""A converter of OneHotEncoder for text: skl2onnx's answers a category that training did not see with an error."""

from typing import Any

import numpy as np

from release_platform.pipeline.onnx_writer import Writer

_NO_COLUMN = -1


def use_double_one_hot() -> None:
    """Makes skl2onnx convert OneHotEncoder by this module from now on; again is harmless."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.data_types import DoubleTensorType
    from sklearn.preprocessing import OneHotEncoder

    def shapes(operator: Any) -> None:
        operator.outputs[0].type = DoubleTensorType([None, int(sum(operator.raw_operator._n_features_outs))])

    update_registered_converter(OneHotEncoder, "DoubleOneHotEncoder", shapes, _convert)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Writes, for each text, the number of its column, and compares that with the numbers of all columns."""
    from onnx import TensorProto

    encoder, graph = operator.raw_operator, Writer(scope, operator, container)
    if encoder.handle_unknown not in {"ignore", "infrequent_if_exist"} or encoder.drop is not None:
        raise ValueError("one-hot encoding that refuses an unknown category, or drops one")
    n_columns = len(encoder.categories_)
    encoded = []
    for place, name in enumerate(graph.columns(n_columns)):
        keys, values, unknown = _numbers(encoder, place)
        number = graph.labels(name, keys, values, unknown)
        number = graph.node("Reshape", number, graph.constant(np.array([-1, 1])))
        same = graph.node("Equal", number, graph.constant(np.arange(encoder._n_features_outs[place])))
        encoded.append(graph.node("Cast", same, to=TensorProto.DOUBLE))
    graph.node("Concat", *encoded, axis=1, out=graph.outputs[0])


def _numbers(encoder: Any, place: int) -> tuple[list[str], list[int], int]:
    """Returns the known texts of an input, the column of each, and the column of an unknown one."""
    keys = encoder.categories_[place].tolist()
    if not all(isinstance(key, str) for key in keys):
        raise ValueError("one-hot encoding of something other than text")
    infrequent = encoder._default_to_infrequent_mappings[place] if encoder._infrequent_enabled else None
    if infrequent is None:
        return keys, list(range(len(keys))), _NO_COLUMN
    last = int(infrequent.max())
    return keys, infrequent.tolist(), last if encoder.handle_unknown == "infrequent_if_exist" else _NO_COLUMN
