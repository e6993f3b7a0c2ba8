"""Checks trees that come from a file: scikit-learn's compiled code follows their indices wherever they lead.

A child must come after its parent and exist, so that every walk ends; a feature must be one that the caller gives.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def check_tree_nodes(nodes: npt.NDArray[Any], n_features: object) -> None:
    """Refuses nodes of a `sklearn.tree` tree that lead outside of it, or in circles.

    Raises:
        ValueError: They do.
    """
    if nodes.ndim != 1 or not len(nodes) or type(n_features) is not int:
        raise ValueError("a tree has no nodes")
    inner = nodes["left_child"] != -1
    _check(nodes["left_child"], nodes["right_child"], nodes["feature"], inner, n_features)


def check_boosted_nodes(nodes: npt.NDArray[Any]) -> None:
    """Refuses nodes of a histogram gradient boosting tree that lead outside of it, or in circles.

    Raises:
        ValueError: They do, or split by category.
    """
    if nodes.ndim != 1 or not len(nodes) or np.any(nodes["is_categorical"]):
        raise ValueError("a tree has no nodes, or nodes that split by category")
    inner = nodes["is_leaf"] == 0
    _check(nodes["left"], nodes["right"], nodes["feature_idx"], inner, np.iinfo(np.int32).max)


def check_widths(found: object) -> None:
    """Refuses estimators whose trees read a feature that their callers do not check to be there.

    Raises:
        ValueError: They do.
    """
    for value in _all_within(found):
        match type(value).__name__:
            case "DecisionTreeClassifier" | "DecisionTreeRegressor" | "ExtraTreeClassifier" | "ExtraTreeRegressor":
                if hasattr(value, "tree_"):  # else it was never fitted: the template of an ensemble
                    _equal(value.tree_.n_features, value.n_features_in_)
            case "RandomForestClassifier" | "RandomForestRegressor" | "ExtraTreesClassifier" | "ExtraTreesRegressor":
                for tree in value.estimators_:
                    _equal(tree.n_features_in_, value.n_features_in_)
            case "GradientBoostingClassifier" | "GradientBoostingRegressor":
                _check_stages(value)
            case "HistGradientBoostingClassifier" | "HistGradientBoostingRegressor":
                _check_predictors(value)


def _check_stages(model: Any) -> None:
    for tree in model.estimators_.ravel():
        _equal(tree.n_features_in_, model.n_features_in_)
        _equal(tree.tree_.max_n_classes, 1)
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))
    _equal(start.shape, (1, model.estimators_.shape[1]))


def _check_predictors(model: Any) -> None:
    if model._preprocessor is not None or type(model.n_features_in_) is not int:
        raise ValueError("a boosted model has a preprocessing of its own")
    for predictor in (predictor for stage in model._predictors for predictor in stage):
        nodes = predictor.nodes
        if np.any(nodes["feature_idx"][nodes["is_leaf"] == 0] >= model.n_features_in_):
            raise ValueError("a tree splits by a feature that the model is not given")


def _equal(found: object, expected: object) -> None:
    if type(found) is not type(expected) or found != expected:
        raise ValueError(f"a tree is made for {found!s:.40}, its model for {expected!s:.40}")


def _check(left: Any, right: Any, feature: Any, inner: npt.NDArray[np.bool_], n_features: int) -> None:
    place = np.arange(len(left))[inner]
    for child in (left[inner].astype(np.int64), right[inner].astype(np.int64)):
        if np.any(child <= place) or np.any(child >= len(left)):
            raise ValueError("a tree leads outside of its nodes, or in circles")
    if np.any(feature[inner] < 0) or np.any(feature[inner] >= n_features):
        raise ValueError("a tree splits by a feature that there is not")


def _all_within(value: object) -> list[Any]:
    found: dict[int, Any] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in found or item is None or isinstance(item, str | bytes | int | float | type):
            continue
        found[id(item)] = item
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, np.ndarray):
            waiting.extend(item.ravel().tolist() if item.dtype.hasobject else ())
        else:
            waiting.extend(getattr(item, "__dict__", {}).values())
    return list(found.values())
