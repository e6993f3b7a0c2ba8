"""Proposes a model for a file: `release new churn --from churn.csv --target churned` writes what is returned here."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd

from release_platform.domain.data_spec import SourceSpec
from release_platform.domain.errors import DataError
from release_platform.domain.features import ColumnType
from release_platform.domain.metrics import Task
from release_platform.pipeline.files import require_columns
from release_platform.pipeline.profile import ColumnProfile, infer_types, labels_of, look_at, typed
from release_platform.pipeline.sources import file_columns, is_parquet, read_source

MINIMUM_ROWS = 50
_HELD_OUT_ROWS = 25
_MAXIMUM_CLASSES = 20
_POSITIVE = ("true", "yes", "1", "y", "t", "positive", "bad", "fraud")
_PLAIN = re.compile(r"[A-Za-z_/](?:[\w./@ -]|:(?=\w))*(?<! )", re.ASCII)
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
_ESTIMATORS = {Task.REGRESSION: "HistGradientBoostingRegressor"}
_METRICS = {
    Task.BINARY: "roc_auc, average_precision, log_loss, brier, expected_calibration_error",
    Task.MULTICLASS: "accuracy, macro_f1, log_loss, expected_calibration_error",
    Task.REGRESSION: "rmse, mae, r2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    profile: ColumnProfile
    task: Task
    why: str
    labels: Mapping[str, int]
    spread: float


def propose(name: str, path: Path, target: str, owner: str, *, address: str | None = None) -> str:
    """Returns the text of a `defs.yaml` that trains, judges and releases a model of a file's target, with comments.

    Args:
        name: The model's name.
        path: A CSV or Parquet file; it is read now.
        target: Name of the column that is to be predicted.
        owner: `team:name` or an e-mail address.
        address: How the YAML names the file, e.g. relative to its own folder; None: the absolute path.

    Raises:
        SourceError: The file cannot be read, or has no such column.
        DataError: No model can be trained on it: too few rows, no target in some, only one class, too many classes.
    """
    names = file_columns(path)
    require_columns(str(path), [target], names)
    absolute = str(path.absolute())
    source = SourceSpec(parquet=absolute) if is_parquet(absolute) else SourceSpec(csv=absolute)
    raw = read_source(source, base=path.parent, columns=dict.fromkeys(names, ColumnType.CATEGORY))
    types = infer_types(raw)
    frame = typed(raw, types, source=str(path))
    _require_rows(frame, target, str(path))
    found = _look_at_target(frame[target], types[target], str(path))
    classes = None if found.task is Task.REGRESSION else frame[target]
    columns = [look_at(frame[n], types[n], classes) for n in names if n != target]
    kept = [column for column in columns if not column.left_out]
    if not kept:
        raise DataError(
            f"{path}: no column is left to learn from", remedy="add columns that say something of the target"
        )
    copies = int(frame[[target, *(column.name for column in kept)]].duplicated().sum())
    lines = _head(name, owner, path, address or absolute, found)
    lines += [*_contract(frame, found, columns), *_target(found), *_split(len(frame), kept, copies)]
    lines += [*_features(kept), *_estimator(found.task, len(frame)), *_slices(kept), *_gates(found, len(frame))]
    return "\n".join(lines) + "\n"


def _require_rows(frame: pd.DataFrame, target: str, source: str) -> None:
    if len(frame) < MINIMUM_ROWS:
        raise DataError(
            f"{source}: {len(frame)} row(s) are too few to train and judge a model",
            remedy=f"get {MINIMUM_ROWS} or more",
        )
    missing = int(frame[target].isna().sum())
    if missing:
        raise DataError(
            f"{source}: the target '{target}' is missing in {missing:,} of {len(frame):,} row(s)",
            remedy="leave out rows without a known answer",
        )


def _look_at_target(values: "pd.Series[Any]", kind: ColumnType, source: str) -> _Target:
    profile = look_at(values, kind, None)
    task, why = _task(profile, len(values), source)
    return _Target(
        profile=profile,
        task=task,
        why=why,
        labels={} if task is Task.REGRESSION else labels_of(values),
        spread=float(values.astype(float).std()) if task is Task.REGRESSION else 0.0,
    )


def _task(profile: ColumnProfile, n_rows: int, source: str) -> tuple[Task, str]:
    name, n_unique, kind = profile.name, profile.n_unique, profile.type
    if n_unique == 1:
        raise DataError(
            f"{source}: all rows have the same '{name}'", remedy="there is nothing to learn from a constant"
        )
    if kind is ColumnType.TIMESTAMP:
        raise DataError(f"{source}: the target '{name}' is a time", remedy="name a target that is a class or a number")
    if kind is ColumnType.NUMBER:
        return Task.REGRESSION, "the target is a number"
    if n_unique == 2:
        return Task.BINARY, "the target has two values"
    few = n_unique <= _MAXIMUM_CLASSES and n_unique <= n_rows / 10
    if kind is ColumnType.INTEGER:
        said = f"the target has {n_unique} different whole numbers"
        return (Task.MULTICLASS, f"{said}; if they are amounts, write regression") if few else (Task.REGRESSION, said)
    if not few:
        raise DataError(
            f"{source}: the target '{name}' has {n_unique:,} classes in {n_rows:,} rows",
            remedy=f"name a target of at most {_MAXIMUM_CLASSES} classes, with ten rows or more for each",
        )
    return Task.MULTICLASS, f"the target has {n_unique} classes"


def _head(name: str, owner: str, path: Path, address: str, target: _Target) -> list[str]:
    return [
        f"# Proposed from {path.name}. Everything here is a first guess: read it, and change what you know better.",
        "type: release_platform.component.ModelRelease",
        "attributes:",
        f"  name: {_said(name)}",
        f"  description: {_said(f'Predicts {target.profile.name}.')}",
        f"  task: {target.task.value}  # {target.why}",
        f"  owner: {_said(owner)}",
        "  source:",
        f"    {'parquet' if is_parquet(address) else 'csv'}: {_said(address)}",
    ]


def _contract(frame: pd.DataFrame, target: _Target, columns: Sequence[ColumnProfile]) -> Iterator[str]:
    yield "  contract:  # what must hold for new data, or the release stops"
    yield f"    minimum_rows: {len(frame) // 2}  # half of what was there"
    yield "    columns:"
    for column in columns:
        if column.left_out:
            yield f"      # {_said(column.name)}: left out, it {column.left_out}"
        else:
            yield f"      {_said(column.name)}: {{{_rules(column)}}}"
    labels = f", allowed: [{', '.join(_label(text, target) for text in target.labels)}]" if target.labels else ""
    yield f"      {_said(target.profile.name)}: {{type: {target.profile.type.value}{labels}}}"


def _rules(column: ColumnProfile) -> str:
    rules = [f"type: {column.type.value}"]
    if column.missing > 0:
        rules += ["nullable: true", f"maximum_missing: {min(1.0, ceil((2 * column.missing + 0.01) * 100) / 100):g}"]
    if column.non_negative:
        rules += ["minimum: 0"]
    return ", ".join(rules)


def _label(text: str, target: _Target) -> str:
    return text if target.profile.type in {ColumnType.INTEGER, ColumnType.BOOLEAN} else _said(text)


def _target(target: _Target) -> Iterator[str]:
    yield "  target:"
    yield f"    column: {_said(target.profile.name)}"
    if target.task is Task.BINARY:
        rarer = min(target.labels, key=lambda text: (target.labels[text], text))
        positive = next((text for text in target.labels if text.lower() in _POSITIVE), rarer)
        share = target.labels[positive] / sum(target.labels.values())
        yield f"    positive: {_label(positive, target)}  # what the probability is of: {share:.1%} of the rows"


def _split(n_rows: int, columns: Sequence[ColumnProfile], copies: int) -> Iterator[str]:
    yield "  split:"
    yield "    strategy: random"
    yield f"    test_share: {max(0.25, ceil(_HELD_OUT_ROWS / n_rows * 100) / 100):g}"
    if copies:
        yield f"    allow_duplicates: true  # {copies:,} row(s) equal an earlier one; drop them if they are mistakes"
    times = [column.name for column in columns if column.type is ColumnType.TIMESTAMP and column.missing == 0]
    if times:
        yield "    # A model of the future is better judged on the latest rows:"
        yield "    # strategy: time"
        yield f"    # column: {_said(times[0])}"


def _features(columns: Sequence[ColumnProfile]) -> Iterator[str]:
    yield "  features:  # take out what is not known at the time of the prediction"
    taken = {column.name for column in columns}
    for column in columns:
        if column.type is not ColumnType.TIMESTAMP:
            yield f"    - {_said(column.name)}"
            continue
        for operation in ("month", "weekday", "hour"):
            derived = _unused(f"{column.name}_{operation}", taken)
            yield f"    - {{name: {_said(derived)}, operation: {operation}, of: [{_said(column.name)}]}}"


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _estimator(task: Task, n_rows: int) -> Iterator[str]:
    yield "  estimator:"
    yield f"    type: sklearn.ensemble.{_ESTIMATORS.get(task, 'HistGradientBoostingClassifier')}"
    yield f"    parameters: {{max_iter: {100 if n_rows < 10_000 else 200}, learning_rate: 0.1, early_stopping: false}}"
    yield "    preprocessing: {numeric: pass, categorical: ordinal}  # trees take missing values and any scale"
    yield f"  metrics: [{_METRICS[task]}]"


def _slices(columns: Sequence[ColumnProfile]) -> Iterator[str]:
    kinds = {ColumnType.CATEGORY, ColumnType.BOOLEAN}
    names = [column.name for column in columns if column.type in kinds and column.n_unique <= 10][:2]
    if names:
        yield f"  slices: [{', '.join(map(_said, names))}]"


def _gates(target: _Target, n_rows: int) -> Iterator[str]:
    yield "  gates:"
    match target.task:
        case Task.BINARY:
            limits, worse = ("roc_auc", 0.55, 0.995), ("roc_auc", 0.01)
            trivial = "0.5 is a coin"
        case Task.MULTICLASS:
            share = max(target.labels.values()) / sum(target.labels.values())
            limits, worse = ("accuracy", round(min(share + 0.02, (1 + share) / 2), 4), 0.9995), ("accuracy", 0.01)
            trivial = f"always the most frequent class gives {share:.4g}"
        case Task.REGRESSION:
            limits, worse = ("r2", 0.05, 0.9995), ("rmse", float(f"{target.spread / 50:.1e}"))
            trivial = "always the mean gives 0"
    metric, lowest, highest = limits
    yield f"    - {{name: floor, metric: {metric}, minimum: {lowest}}}  # {trivial}: raise it to what the use needs"
    yield f"    - {{name: plausible, metric: {metric}, maximum: {highest}}}  # better than this looks like a leak"
    yield f"    - {{name: no_worse, metric: {worse[0]}, against: production, margin: {worse[1]}, confidence: 0.95}}"
    if target.task is not Task.REGRESSION:
        limit = 0.1 if n_rows >= 4_000 else 0.2
        yield f"    - {{name: calibrated, metric: expected_calibration_error, maximum: {limit}}}"
    yield "    - {name: size, metric: package_bytes, maximum: 20000000}"
    yield "    - {name: latency, metric: latency_p99_ms, maximum: 100}"


def _said(text: str) -> str:
    """Returns a text as YAML reads it back: bare where that is safe, quoted otherwise."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
