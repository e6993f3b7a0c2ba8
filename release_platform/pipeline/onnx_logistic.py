"""A converter of logistic regression for double precision: a product of matrices, the intercept, the link function.

That of skl2onnx goes on to divide probabilities that sum to 1 by their sum, in three more steps.
"""

from typing import Any

import numpy as np

from release_platform.pipeline.onnx_writer import Writer, classifier_shapes


def use_double_logistic() -> None:
    """Makes skl2onnx convert LogisticRegression by this module from now on; again is harmless."""
    from skl2onnx import update_registered_converter
    from sklearn.linear_model import LogisticRegression

    options = {"zipmap": [True, False, "columns"], "raw_scores": [True, False]}
    update_registered_converter(
        LogisticRegression, "DoubleLogisticRegression", classifier_shapes, _convert, options=options
    )


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """As `LogisticRegression.predict_proba`: the logistic function for two classes, softmax for more.

    What calibrates the model asks for its scores instead.
    """
    model, graph = operator.raw_operator, Writer(scope, operator, container)
    weights, intercept = np.asarray(model.coef_, dtype=np.float64), np.asarray(model.intercept_, dtype=np.float64)
    binary = len(weights) == 1
    if binary:
        weights, intercept = np.vstack([-weights, weights]), np.append(-intercept, intercept)
    product = graph.node("MatMul", graph.matrix(), graph.constant(np.ascontiguousarray(weights.T)))
    scores = graph.node("Add", product, graph.constant(intercept))
    answer = graph.outputs[1]
    if container.get_options(model, {"raw_scores": False})["raw_scores"]:
        graph.node("Identity", scores, out=answer)
    elif binary:
        graph.node("Sigmoid", scores, out=answer)
    else:
        graph.node("Softmax", scores, out=answer, axis=1)
    graph.label(answer, model.classes_)
