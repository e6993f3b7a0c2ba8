"""Digests: of files in a manifest, and of a fitted model whatever its bytes are."""

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from release_platform.domain.identity import FileEntry, Manifest, digest_of, digest_of_model

ESTIMATORS = [
    LogisticRegression(max_iter=500),
    HistGradientBoostingClassifier(max_iter=5, random_state=0),
    RandomForestClassifier(n_estimators=5, random_state=0),
]


def fit(estimator: object, *, change: bool = False) -> object:
    features, target = load_breast_cancer(return_X_y=True, as_frame=True)
    if change:
        features.iloc[400, 0] += 5.0
    scale = ColumnTransformer([("scale", StandardScaler(), list(features.columns[:8]))])
    return make_pipeline(scale, estimator).fit(features, target)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_the_same_training_gives_the_same_digest(estimator: object) -> None:
    first = digest_of_model(fit(estimator))
    assert digest_of_model(fit(estimator)) == first
    assert digest_of_model(fit(estimator, change=True)) != first


def test_the_digest_survives_saving_and_loading() -> None:
    import skops.io as sio

    from release_platform.adapters.skops_types import TRUSTED

    model = fit(ESTIMATORS[1])
    loaded = sio.loads(sio.dumps(model), trusted=list(TRUSTED))
    assert digest_of_model(loaded) == digest_of_model(model)


def test_the_order_in_which_a_dictionary_was_filled_does_not_count() -> None:
    assert digest_of_model({"a": 1, "b": 2}) == digest_of_model({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (np.array([1, 2]), np.array([[1, 2]])),
        (1, True),
        (1, 1.0),
        (None, "None"),
        ([1, [2]], [[1], 2]),
    ],
)
def test_values_that_differ_have_different_digests(one: object, other: object) -> None:
    assert digest_of_model(one) != digest_of_model(other)


def entry(path: str, sha256: str = "0") -> FileEntry:
    return FileEntry(path=path, size_bytes=1, sha256=sha256)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "a//b", "./a", "", "a\\b"])
def test_a_manifest_holds_plain_relative_paths_only(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        Manifest(files=(entry(path),))


def test_a_manifest_lists_each_path_once_and_in_order() -> None:
    with pytest.raises(ValueError, match="once"):
        Manifest(files=(entry("a"), entry("a")))
    with pytest.raises(ValueError, match="order"):
        Manifest(files=(entry("b"), entry("a")))


def test_a_manifest_survives_json_and_its_digest_covers_every_field() -> None:
    manifest = Manifest(files=(entry("a"), entry("b")))
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest(files=(entry("a"), entry("b", "1"))).digest != manifest.digest


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest_of({"value": float("nan")})
