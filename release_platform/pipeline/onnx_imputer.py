"""A converter of SimpleImputer for double precision: ONNX Runtime has no Imputer for doubles, but Where and IsNaN."""

from typing import Any


def use_double_imputer() -> None:
    """Makes skl2onnx convert SimpleImputer by this module from now on; again is harmless."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.data_types import DoubleTensorType
    from sklearn.impute import SimpleImputer

    def shapes(operator: Any) -> None:
        operator.outputs[0].type = DoubleTensorType([None, len(operator.raw_operator.statistics_)])

    update_registered_converter(SimpleImputer, "DoubleSimpleImputer", shapes, _convert)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    import numpy as np
    from onnx import helper, numpy_helper

    fill = np.asarray(operator.raw_operator.statistics_, dtype=np.float64).reshape(1, -1)
    if np.isnan(fill).any():
        raise ValueError("a feature had no value at all in training")
    source, target = operator.inputs[0].full_name, operator.outputs[0].full_name
    constant, missing = scope.get_unique_variable_name("fill"), scope.get_unique_variable_name("missing")
    tensor = numpy_helper.from_array(fill, constant)
    container.initializers.append(tensor)
    container.nodes.append(helper.make_node("IsNaN", [source], [missing]))
    container.nodes.append(helper.make_node("Where", [missing, constant, source], [target]))
