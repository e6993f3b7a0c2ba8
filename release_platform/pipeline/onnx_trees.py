"""Converters of scikit-learn's tree models for double precision: one operator TreeEnsemble, then the link function.

What scikit-learn starts from (the baseline of a boosted model) is the first tree, of one value. The models of
`sklearn.tree` round to single precision before they compare with thresholds of double precision; so does the graph.
The features are reshaped to the width that the model was fitted with: `adapters/onnx_trees.py` asks for that.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from release_platform.pipeline.onnx_writer import Writer, classifier_shapes
from release_platform.pipeline.tree_ensemble import Ensemble, Tree


def use_double_trees() -> None:
    """Makes skl2onnx convert tree models by this module from now on; again is harmless."""
    import sklearn.ensemble
    import sklearn.tree
    from skl2onnx import update_registered_converter

    for name, (module, build) in {
        "DecisionTree": (sklearn.tree, _of_tree),
        "ExtraTree": (sklearn.tree, _of_tree),
        "RandomForest": (sklearn.ensemble, _of_forest),
        "ExtraTrees": (sklearn.ensemble, _of_forest),
        "GradientBoosting": (sklearn.ensemble, _of_stages),
        "HistGradientBoosting": (sklearn.ensemble, _of_predictors),
    }.items():
        for kind, shapes, options in (
            ("Classifier", classifier_shapes, {"zipmap": [True, False, "columns"]}),
            ("Regressor", _regressor_shapes, None),
        ):
            model = getattr(module, name + kind)
            update_registered_converter(model, f"Double{name}{kind}", shapes, _convert(build), options=options)


def _convert(build: Callable[[Any, Writer], str]) -> Callable[[Any, Any, Any], None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        model, graph = operator.raw_operator, Writer(scope, operator, container)
        if getattr(model, "n_outputs_", 1) != 1:
            raise ValueError("a model with several answers")
        answer = build(model, graph)
        graph.node("Identity", answer, out=graph.outputs[-1])
        if hasattr(model, "classes_"):
            graph.label(graph.outputs[-1], model.classes_)

    return convert


def _trees(graph: Writer, ensemble: Ensemble, n_features: int, *, single: bool) -> str:
    """Adds the trees and returns the name of the sums of their leaves, shape (n_rows, n_targets), float64."""
    from onnx import helper

    features = graph.node("Reshape", graph.matrix(single=single), graph.constant(np.array([-1, n_features])))
    output = graph.name("leaves")
    graph.add(helper.make_node("TreeEnsemble", [features], [output], domain="ai.onnx.ml", **ensemble.attributes()))
    return output


def _begin(model: Any) -> Ensemble:
    """Returns an ensemble without trees; its answer is NaN where the model would refuse a missing value."""
    from sklearn.utils import get_tags

    ensemble = Ensemble()
    if not get_tags(model).input_tags.allow_nan:
        ensemble.add_guard(model.n_features_in_)
    return ensemble


def _add_average(ensemble: Ensemble, model: Any) -> None:
    """Adds the tree of a decision tree or of one member of a forest: once per class, or once for a regression."""
    found = model.tree_
    tree, values = _plain(found), found.value[:, 0, :]
    for target in range(getattr(model, "n_classes_", 1)):
        ensemble.add(tree, values[:, target], target)


def _plain(found: Any, *, missing: bool = True) -> Tree:
    return Tree(
        leaf=found.children_left == -1,
        left=found.children_left,
        right=found.children_right,
        feature=found.feature,
        threshold=found.threshold,
        missing_left=found.missing_go_to_left if missing else np.zeros(found.node_count),
    )


def _of_tree(model: Any, graph: Writer) -> str:
    ensemble = _begin(model)
    _add_average(ensemble, model)
    return _trees(graph, ensemble, model.n_features_in_, single=True)


def _of_forest(model: Any, graph: Writer) -> str:
    ensemble = _begin(model)
    for member in model.estimators_:
        _add_average(ensemble, member)
    total = _trees(graph, ensemble, model.n_features_in_, single=True)
    return graph.node("Div", total, graph.constant(np.array([float(len(model.estimators_))])))


def _of_stages(model: Any, graph: Writer) -> str:
    """Gradient boosting: what it starts from is one value per class, unless `init` is a model of its own."""
    if model.init_ != "zero" and type(model.init_).__name__ not in {"DummyClassifier", "DummyRegressor"}:
        raise ValueError("gradient boosting that starts from another model")
    ensemble = _begin(model)
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))
    for target, value in enumerate(start[0]):
        ensemble.add_constant(value, target)
    for stage in model.estimators_:
        for target, member in enumerate(stage):
            found = member.tree_
            ensemble.add(_plain(found, missing=False), model.learning_rate * found.value[:, 0, 0], target)
    return _linked(graph, _trees(graph, ensemble, model.n_features_in_, single=True), model)


def _of_predictors(model: Any, graph: Writer) -> str:
    """Histogram gradient boosting."""
    if model.is_categorical_ is not None:
        raise ValueError("trees that split by category")
    ensemble = _begin(model)
    for target, value in enumerate(model._baseline_prediction.ravel()):
        ensemble.add_constant(value, target)
    for stage in model._predictors:
        for target, predictor in enumerate(stage):
            nodes = predictor.nodes
            tree = Tree(
                leaf=nodes["is_leaf"] == 1,
                left=nodes["left"],
                right=nodes["right"],
                feature=nodes["feature_idx"],
                threshold=nodes["num_threshold"],
                missing_left=nodes["missing_go_to_left"],
            )
            ensemble.add(tree, nodes["value"], target)
    return _linked(graph, _trees(graph, ensemble, model.n_features_in_, single=False), model)


def _linked(graph: Writer, raw: str, model: Any) -> str:
    """Adds the inverse of the link function of a boosted model, and returns the name of its answer."""
    match type(model._loss.link).__name__:
        case "IdentityLink":
            return raw
        case "LogLink":
            return graph.node("Exp", raw)
        case "MultinomialLogit":
            return graph.node("Softmax", raw, axis=1)
        case "LogitLink":
            pass
        case "HalfLogitLink":
            raw = graph.node("Add", raw, raw)
        case other:
            raise ValueError(f"boosting with the link function {other}")
    # Both classes by the function: of an even count of numbers the runtime computes each in the same way in any batch
    return graph.node("Sigmoid", graph.node("Concat", graph.node("Neg", raw), raw, axis=1))


def _regressor_shapes(operator: Any) -> None:
    from skl2onnx.common.data_types import DoubleTensorType

    operator.outputs[0].type = DoubleTensorType([None, 1])
