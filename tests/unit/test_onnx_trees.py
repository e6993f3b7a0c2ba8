"""Tree models in ONNX answer as scikit-learn does, bit for bit but for the link function, thresholds included."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from release_platform.adapters.model_package import OnnxEngine
from release_platform.domain.features import MISSING, ColumnType, FeaturePlan, Input
from release_platform.pipeline.onnx_graph import to_onnx

N_FEATURES = 6
NAMES = tuple(f"x{place}" for place in range(N_FEATURES))
MISSING_ALLOWED = {
    "decision tree": (DecisionTreeClassifier, DecisionTreeRegressor, {}),
    "extra tree": (ExtraTreeClassifier, ExtraTreeRegressor, {}),
    "random forest": (RandomForestClassifier, RandomForestRegressor, {"n_estimators": 7}),
    "extra trees": (ExtraTreesClassifier, ExtraTreesRegressor, {"n_estimators": 7}),
    "histogram boosting": (HistGradientBoostingClassifier, HistGradientBoostingRegressor, {"max_iter": 9}),
}
BOOSTED = {
    "boosting": (GradientBoostingClassifier, GradientBoostingRegressor, {"n_estimators": 9}),
    "boosting from zero": (
        GradientBoostingClassifier,
        GradientBoostingRegressor,
        {"n_estimators": 9, "init": "zero"},
    ),
}
FAMILIES = {**MISSING_ALLOWED, **BOOSTED}
BY_LINK = [
    HistGradientBoostingRegressor(loss="poisson", max_iter=9, random_state=0),
    HistGradientBoostingRegressor(loss="gamma", max_iter=9, random_state=0),
    GradientBoostingClassifier(loss="exponential", n_estimators=9, random_state=0),
]
LINK_TOLERANCE = 1e-14

Numbers = npt.NDArray[np.float64]


def engine(model: Any, frame: pd.DataFrame) -> OnnxEngine:
    """Converts a fitted model and loads it by the rules of serving."""
    kinds = {"O": ColumnType.CATEGORY, "f": ColumnType.NUMBER}
    types = {str(name): kinds[dtype.kind] for name, dtype in frame.dtypes.items()}
    plan = FeaturePlan(
        inputs=tuple(Input(name=name, type=kind, nullable=True) for name, kind in types.items()),
        derived=(),
        features=tuple(types),
    )
    task = "binary" if hasattr(model, "classes_") else "regression"
    return OnnxEngine(to_onnx(model, types), {"task": task, "plan": plan.to_json()})


def asked(served: OnnxEngine, frame: pd.DataFrame) -> Numbers:
    return served.predict({str(name): frame[name].to_numpy() for name in frame})


def expected(model: Any, frame: pd.DataFrame) -> Numbers:
    answers = model.predict_proba(frame) if hasattr(model, "classes_") else model.predict(frame)
    return np.asarray(answers, dtype=np.float64)


def rows(seed: int, n_rows: int, *, missing: bool) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(n_rows, N_FEATURES)) * 10.0 ** generator.integers(-3, 4, N_FEATURES)
    values[:, 0] = np.round(values[:, 0])
    if missing:
        values[generator.random(values.shape) < 0.1] = np.nan
    return pd.DataFrame(values, columns=list(NAMES))


def target(frame: pd.DataFrame, n_classes: int, seed: int) -> npt.NDArray[Any]:
    ranks = frame.fillna(0.0).rank(pct=True).to_numpy()
    score = ranks[:, 0] + ranks[:, 1] * ranks[:, 2] + np.random.default_rng(seed).normal(size=len(frame)) / 5
    if not n_classes:
        return np.exp(score)
    labels = np.array(["low", "mid", "high", "top"])
    return labels[np.digitize(score, np.quantile(score, np.arange(1, n_classes) / n_classes))]


def thresholds(model: Any) -> Iterator[tuple[int, float]]:
    """Yields the feature and the threshold of each split."""
    if hasattr(model, "_predictors"):
        for predictor in (predictor for stage in model._predictors for predictor in stage):
            inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            yield from zip(inner["feature_idx"], inner["num_threshold"], strict=True)
    else:
        for member in np.ravel(getattr(model, "estimators_", model)):
            inner = member.tree_.children_left != -1
            yield from zip(member.tree_.feature[inner], member.tree_.threshold[inner], strict=True)


def at_thresholds(model: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """Returns rows at, just above and just below thresholds, in double and in single precision."""
    found = []
    for place, (feature, threshold) in enumerate(list(thresholds(model))[:150]):
        if not abs(threshold) < 1e30:
            continue
        single = np.float32(threshold)
        near = [np.nextafter(single, np.float32(side)) for side in (-np.inf, np.inf)]
        halves = [(float(single) + float(other)) / 2 for other in near]
        doubles = [np.nextafter(threshold, side) for side in (-np.inf, np.inf)]
        for value in (threshold, float(single), *map(float, near), *halves, *doubles):
            row = frame.iloc[place % len(frame)].to_numpy().copy()
            row[feature] = value
            found.append(row)
    return pd.DataFrame(found, columns=list(NAMES))


def fitted(family: str, n_classes: int, seed: int) -> tuple[Any, pd.DataFrame]:
    classifier, regressor, parameters = FAMILIES[family]
    frame = rows(seed, 300, missing=family in MISSING_ALLOWED)
    model = (classifier if n_classes else regressor)(random_state=seed, **parameters)
    return model.fit(frame, target(frame, n_classes, seed)), frame


@pytest.mark.parametrize("n_classes", [0, 2, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_every_family_answers_as_scikit_learn_at_its_thresholds_too(family: str, n_classes: int, seed: int) -> None:
    model, frame = fitted(family, n_classes, seed)
    both = pd.concat([frame, at_thresholds(model, frame)], ignore_index=True)
    found, wanted = asked(engine(model, frame), both), expected(model, both)
    if n_classes and "boosting" in family:
        assert np.abs(found - wanted).max() <= LINK_TOLERANCE
        assert np.array_equal(found.argmax(axis=1), wanted.argmax(axis=1))
    else:
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("model", BY_LINK, ids=lambda model: model.loss)
def test_every_link_function_answers_as_scikit_learn(model: Any) -> None:
    frame = rows(0, 300, missing=False)
    model.fit(frame, target(frame, 2 if hasattr(model, "predict_proba") else 0, 0))
    both = pd.concat([frame, at_thresholds(model, frame)], ignore_index=True)
    np.testing.assert_allclose(asked(engine(model, frame), both), expected(model, both), rtol=LINK_TOLERANCE)


@pytest.mark.parametrize("n_classes", [0, 2, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_gets_the_same_answer_alone_and_among_others(family: str, n_classes: int) -> None:
    model, frame = fitted(family, n_classes, 7)
    served = engine(model, frame)
    alone = np.concatenate([asked(served, frame.iloc[[place]]) for place in range(len(frame))])
    assert np.array_equal(alone, asked(served, frame))


@pytest.mark.parametrize("family", BOOSTED)
def test_a_missing_value_that_the_model_refuses_has_no_finite_answer(family: str) -> None:
    model, frame = fitted(family, 2, 3)
    holed = frame.copy()
    holed.iloc[5, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.predict_proba(holed)
    found = asked(engine(model, frame), holed)
    assert np.isnan(found[5]).all()
    assert np.array_equal(np.delete(found, 5, axis=0), asked(engine(model, frame), frame.drop(index=5)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_classes", [0, 3])
def test_a_tree_without_a_split_answers(family: str, n_classes: int) -> None:
    classifier, regressor, parameters = FAMILIES[family]
    frame = rows(1, 60, missing=False)
    model = (classifier if n_classes else regressor)(min_samples_leaf=50, random_state=0, **parameters)
    model.fit(frame, target(frame, n_classes, 1))
    assert not list(thresholds(model))
    np.testing.assert_allclose(asked(engine(model, frame), frame), expected(model, frame), rtol=LINK_TOLERANCE)


def test_labels_that_are_numbers_convert() -> None:
    frame = rows(2, 100, missing=False)
    for labels in (np.arange(100) % 3, np.arange(100) % 2 == 0):
        model = RandomForestClassifier(n_estimators=3, random_state=0).fit(frame, labels)
        assert np.array_equal(asked(engine(model, frame), frame), expected(model, frame))


@pytest.mark.parametrize("estimator", [HistGradientBoostingClassifier(max_iter=9), RandomForestClassifier(7)])
@pytest.mark.parametrize("interleaved", [False, True])
def test_a_pipeline_with_text_features_answers_as_scikit_learn(estimator: Any, interleaved: bool) -> None:
    frame = rows(4, 400, missing=True)
    kinds = np.array(["a", "b", "c", "rare", MISSING], dtype=object)
    frame.insert(2 if interleaved else N_FEATURES, "kind", kinds[np.random.default_rng(4).integers(0, 5, 400)])
    frame["place"] = kinds[np.random.default_rng(5).integers(0, 3, 400)]
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    columns = ColumnTransformer(
        [
            ("scaled", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), list(NAMES[:3])),
            ("as is", "passthrough", list(NAMES[3:])),
            (
                "one",
                OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5, sparse_output=False),
                ["kind"],
            ),
            ("code", ordinal, ["place"]),
        ]
    )
    model = Pipeline([("columns", columns), ("estimator", estimator)])
    model.fit(frame, target(frame[list(NAMES)], 2, 4))
    unknown = frame.head(20).assign(kind="never seen", place="never seen")
    both = pd.concat([frame, unknown], ignore_index=True)
    assert np.abs(asked(engine(model, frame), both) - expected(model, both)).max() <= LINK_TOLERANCE


def test_ten_thousand_rows_take_little_memory() -> None:
    model, frame = fitted("histogram boosting", 4, 5)
    many = pd.concat([frame] * 34, ignore_index=True).head(10_000)
    assert np.abs(asked(engine(model, frame), many) - expected(model, many)).max() <= LINK_TOLERANCE


def test_trees_that_split_by_category_are_not_converted() -> None:
    frame = rows(6, 200, missing=False)
    model = HistGradientBoostingRegressor(max_iter=3, categorical_features=[0])
    frame["x0"] = frame["x0"].clip(0, 5)
    model.fit(frame, target(frame, 0, 6))
    with pytest.raises(ValueError, match="split by category"):
        engine(model, frame)


def test_boosting_that_starts_from_another_model_is_not_converted() -> None:
    frame = rows(6, 200, missing=False)
    model = GradientBoostingRegressor(n_estimators=3, init=DecisionTreeRegressor(max_depth=2))
    model.fit(frame, target(frame, 0, 6))
    with pytest.raises(ValueError, match="starts from another model"):
        engine(model, frame)


def test_a_model_of_several_answers_is_not_converted() -> None:
    frame = rows(6, 200, missing=False)
    model = DecisionTreeRegressor(max_depth=2).fit(frame, frame[["x0", "x1"]])
    with pytest.raises(ValueError, match="several answers"):
        engine(model, frame)
