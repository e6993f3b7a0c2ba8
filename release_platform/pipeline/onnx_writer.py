"""Writes nodes into the graph that skl2onnx builds, for converters of our own."""

from typing import Any

import numpy as np
import numpy.typing as npt


class Writer:
    """Writes the nodes of one model.

    Attributes:
        outputs: The names that the model's outputs must have.
    """

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope, self._container = scope, container
        self._given = [(variable.full_name, type(variable.type).__name__) for variable in operator.inputs]
        self.outputs: list[str] = operator.output_full_names

    def node(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Adds a node and returns the name of its output."""
        output = out or self.name(kind.lower())
        self._container.add_node(kind, list(inputs), [output], **attributes)
        return output

    def name(self, wish: str) -> str:
        """Returns a name that no other node has."""
        return str(self._scope.get_unique_variable_name(wish))

    def labels(self, name: str, keys: list[str], values: list[int], default: int) -> str:
        """Adds a table from text to a number and returns the name of its output."""
        output = self.name("labels")
        more = {"keys_strings": keys, "values_int64s": values, "default_int64": default}
        self._container.add_node("LabelEncoder", [name], [output], op_domain="ai.onnx.ml", op_version=2, **more)
        return output

    def constant(self, value: Any) -> str:
        """Adds a constant and returns its name."""
        from onnx import numpy_helper

        name = self.name("constant")
        self._container.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, node: Any) -> None:
        """Adds a node as it is, for an operator that skl2onnx does not know in its newest version."""
        self._container.nodes.append(node)

    def columns(self, n_columns: int) -> list[str]:
        """Returns the names of the inputs one by one, each of shape (n_rows, 1)."""
        if len(self._given) == n_columns:
            return [name for name, _ in self._given]
        ((joined, _),) = self._given
        return [self.node("Gather", joined, self.constant(np.array([place])), axis=1) for place in range(n_columns)]

    def matrix(self, *, single: bool = False) -> str:
        """Returns the name of all inputs as one in double precision, shape (n_rows, n_columns).

        Args:
            single: Whether they are rounded to single precision first.
        """
        from onnx import TensorProto

        (kind,) = {kind for _, kind in self._given}
        names = [name for name, _ in self._given]
        joined = names[0] if len(names) == 1 else self.node("Concat", *names, axis=1)
        if single and kind != "FloatTensorType":
            joined = self.node("Cast", joined, to=TensorProto.FLOAT)
        return self.node("Cast", joined, to=TensorProto.DOUBLE) if single or kind != "DoubleTensorType" else joined

    def label(self, probabilities: str, classes: npt.NDArray[Any]) -> None:
        """Adds the label of each row as the first output."""
        place = self.node("ArgMax", probabilities, axis=1, keepdims=0)
        numbers = classes.dtype.kind in "biu"
        labels = classes.astype(np.int64) if numbers else np.array([str(label) for label in classes], dtype=object)
        self.node("Gather", self.constant(labels), place, out=self.outputs[0])


def classifier_shapes(operator: Any) -> None:
    """Tells skl2onnx what a classifier answers: a label and the probabilities of its classes, for each row."""
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType

    classes = operator.raw_operator.classes_
    operator.outputs[0].type = (Int64TensorType if classes.dtype.kind in "biu" else StringTensorType)([None])
    operator.outputs[1].type = DoubleTensorType([None, len(classes)])
