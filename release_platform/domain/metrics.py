"""The vocabulary of metrics: what each is called, for which task, and which direction is better.

Quality metrics are measured on the held-out rows; operational ones on the package and on the machine. How they are
measured is the pipeline's business; this table is what a `defs.yaml` may name.
"""

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """What a model predicts."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


class Direction(StrEnum):
    """Which way is better."""

    HIGHER = "higher"
    LOWER = "lower"


CLASSIFICATION = frozenset({Task.BINARY, Task.MULTICLASS})
EVERY_TASK = frozenset(Task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: How it is written in YAML, reports and MLflow.
        direction: Which way is better.
        tasks: The tasks that it is defined for.
        meaning: One sentence with unit and range.
        quality: Measured on held-out rows (True), or on the package and the machine (False).
    """

    name: str
    direction: Direction
    tasks: frozenset[Task]
    meaning: str
    quality: bool = True


def _quality(name: str, direction: Direction, tasks: frozenset[Task], meaning: str) -> Metric:
    return Metric(name=name, direction=direction, tasks=tasks, meaning=meaning)


def _operational(name: str, meaning: str) -> Metric:
    return Metric(name=name, direction=Direction.LOWER, tasks=EVERY_TASK, meaning=meaning, quality=False)


_BINARY = frozenset({Task.BINARY})
_REGRESSION = frozenset({Task.REGRESSION})

_ALL = (
    _quality("roc_auc", Direction.HIGHER, _BINARY, "area under the ROC curve, 0 to 1"),
    _quality("average_precision", Direction.HIGHER, _BINARY, "area under the precision-recall curve, 0 to 1"),
    _quality("log_loss", Direction.LOWER, CLASSIFICATION, "mean negative log likelihood in nats, 0 and up"),
    _quality("brier", Direction.LOWER, _BINARY, "mean squared error of the probability, 0 to 1"),
    _quality("accuracy", Direction.HIGHER, CLASSIFICATION, "share of right labels, 0 to 1"),
    _quality("precision", Direction.HIGHER, _BINARY, "share of right ones among predicted positives, 0 to 1"),
    _quality("recall", Direction.HIGHER, _BINARY, "share of found ones among positives, 0 to 1"),
    _quality("f1", Direction.HIGHER, _BINARY, "harmonic mean of precision and recall, 0 to 1"),
    _quality("macro_f1", Direction.HIGHER, frozenset({Task.MULTICLASS}), "mean of the classes' F1, 0 to 1"),
    _quality(
        "expected_calibration_error",
        Direction.LOWER,
        CLASSIFICATION,
        "mean distance of confidence and hit rate over 15 bins of equal width, 0 to 1",
    ),
    _quality("mae", Direction.LOWER, _REGRESSION, "mean absolute error, in the target's unit"),
    _quality("rmse", Direction.LOWER, _REGRESSION, "root of the mean squared error, in the target's unit"),
    _quality("r2", Direction.HIGHER, _REGRESSION, "share of explained variance, up to 1"),
    _operational("package_bytes", "size of all files of the version, in bytes"),
    _operational("latency_p99_ms", "99th percentile of a single-row prediction in process, in milliseconds"),
    _operational(
        "training_age_days",
        "days from the newest row that it was fitted on to the newest held-out row, where the split is by a timestamp",
    ),
    _operational(
        "parity_difference",
        "largest difference between the trained pipeline's answers and those of each packaged format (skops, ONNX)",
    ),
    _operational(
        "signature_breaks",
        "number of changes of inputs or outputs that would break a client of the Production version",
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

PRIMARY: dict[Task, str] = {Task.BINARY: "roc_auc", Task.MULTICLASS: "accuracy", Task.REGRESSION: "rmse"}


SEARCHABLE = ("roc_auc", "log_loss", "accuracy", "macro_f1", "mae", "rmse", "r2")
"""The metrics that a search can optimise: those that need no positive label and no bins."""


def metrics_for(task: Task) -> tuple[Metric, ...]:
    """Returns the quality metrics that are defined for a task, in the table's order."""
    return tuple(metric for metric in _ALL if metric.quality and task in metric.tasks)
