"""What a release is compared with: a plain script that reads, fits, evaluates, logs to MLflow and registers.

Usage: python benchmarks/plain.py breast_cancer|flight_delay TRACKING_URI ARTIFACT_URI
"""

import sys

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, recall_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

TRUSTED = [
    "numpy.dtype",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
]
PARTS = tuple[pd.DataFrame, pd.DataFrame, "pd.Series[str]", "pd.Series[str]"]


def breast_cancer() -> tuple[PARTS, Pipeline, str]:
    """Returns the split data, the pipeline and the positive label of the small example."""
    from release_platform.examples.breast_cancer.source import load

    frame = load()
    target = frame.pop("diagnosis")
    parts = train_test_split(frame, target, test_size=0.25, stratify=target, random_state=0)
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=0.5, max_iter=1000))
    return tuple(parts), pipeline, "malignant"


def flight_delay() -> tuple[PARTS, Pipeline, str]:
    """Returns the split data, the pipeline and the positive label of the large example."""
    from release_platform.examples.flight_delay.source import load

    frame = load().sort_values("scheduled_departure")
    when = frame["scheduled_departure"]
    of_day = (when.dt.hour * 60 + when.dt.minute) / 1440 * 2 * np.pi
    frame = frame.assign(
        hour=when.dt.hour,
        weekday=when.dt.weekday,
        sine_of_day=np.sin(of_day),
        cosine_of_day=np.cos(of_day),
        plane_age=frame["flight_year"] - frame["plane_year"],
        dewpoint_spread=frame["temp"] - frame["dewp"],
    )
    words = ["carrier", "origin", "dest", "manufacturer"]
    numbers = [
        *(
            "distance",
            "scheduled_arrival_minute",
            "engines",
            "seats",
            "temp",
            "dewp",
            "humid",
            "wind_dir",
            "wind_speed",
        ),
        *("wind_gust", "precip", "pressure", "visib", "hour", "weekday", "sine_of_day", "cosine_of_day"),
        *("plane_age", "dewpoint_spread"),
    ]
    frame[words] = frame[words].fillna("<missing>")
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, min_frequency=0.001)
    prepare = ColumnTransformer([("numbers", "passthrough", numbers), ("words", encoder, words)])
    estimator = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.08, max_leaf_nodes=31, l2_regularization=1.0, early_stopping=False, random_state=0
    )
    cut = int(len(frame) * 0.75)
    features, target = frame[numbers + words], frame["late"]
    parts = (features.iloc[:cut], features.iloc[cut:], target.iloc[:cut], target.iloc[cut:])
    return parts, make_pipeline(prepare, estimator), "yes"


def main(model: str, tracking_uri: str, artifact_uri: str) -> None:
    """Does what a release does, without its guarantees."""
    mlflow.set_tracking_uri(tracking_uri)
    if mlflow.get_experiment_by_name(model) is None:
        mlflow.create_experiment(model, artifact_location=artifact_uri)
    mlflow.set_experiment(model)
    (train_x, test_x, train_y, test_y), pipeline, positive = {
        "breast_cancer": breast_cancer,
        "flight_delay": flight_delay,
    }[model]()
    with mlflow.start_run():
        pipeline.fit(train_x, train_y)
        probability = pipeline.predict_proba(test_x)[:, list(pipeline.classes_).index(positive)]
        truth = test_y == positive
        mlflow.log_params({key: str(value) for key, value in pipeline.steps[-1][1].get_params().items()})
        mlflow.log_metrics(
            {
                "roc_auc": roc_auc_score(truth, probability),
                "average_precision": average_precision_score(truth, probability),
                "log_loss": log_loss(truth, probability),
                "brier": brier_score_loss(truth, probability),
                "recall": recall_score(truth, probability > 0.5),
            }
        )
        mlflow.log_input(mlflow.data.pandas_dataset.from_pandas(train_x, name=model), context="training")
        mlflow.sklearn.log_model(
            pipeline,
            name=model,
            signature=infer_signature(test_x.head(), probability[:5]),
            input_example=test_x.head(),
            serialization_format="skops",
            skops_trusted_types=TRUSTED,
            pip_requirements=["scikit-learn", "skops"],
            registered_model_name=model,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
