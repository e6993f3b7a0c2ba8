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

    options = {"zipmap": [True, False, "columns"]}
    update_registered_converter(
        LogisticRegression, "DoubleLogisticRegression", classifier_shapes, _convert, options=options
    )


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """As `LogisticRegression.predict_proba`: the logistic function for two classes, softmax for more."""
    model, graph = operator.raw_operator, Writer(scope, operator, container)
    weights, intercept = np.asarray(model.coef_, dtype=np.float64), np.asarray(model.intercept_, dtype=np.float64)
    if len(weights) == 1:
        weights, intercept, link = np.vstack([-weights, weights]), np.append(-intercept, intercept), "Sigmoid"
    else:
        link = "Softmax"
    product = graph.node("MatMul", graph.doubles(), graph.constant(np.ascontiguousarray(weights.T)))
    scores = graph.node("Add", product, graph.constant(intercept))
    more = {"axis": 1} if link == "Softmax" else {}
    graph.node(link, scores, out=graph.outputs[1], **more)
    graph.label(graph.outputs[1], model.classes_)
