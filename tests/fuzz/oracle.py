"""What an answer must be: sound in itself, right by the reference reader and the package, equal on both paths."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.prediction import Predictions
from serving.schemas import ProblemDocument
from tests.fuzz.cases import VERSION, Case
from tests.fuzz.reference import READERS, Columns
from tests.fuzz.strict_json import Refused
from tests.fuzz.wire import Answer

_IDS = ("x-request-id", "x-prediction-id")
_UNEQUAL = {*_IDS, "date", "content-length"}
_PROBLEM = TypeAdapter(ProblemDocument)
_LIMIT = float(np.finfo(np.float32).max)


class Oracle:
    """Judges answers.

    Args:
        packages: What each model answers by itself.

    Attributes:
        seen: How many answers of each status were right.
    """

    def __init__(self, packages: Mapping[str, ModelPackage]) -> None:
        self._packages = packages
        self.seen: Counter[tuple[str, int]] = Counter()

    def judge(self, case: Case, fast: Answer, slow: Answer) -> None:
        """Raises AssertionError if an answer is not what it must be."""
        assert _without_ids(fast) == _without_ids(slow), f"the two paths differ: {fast} {slow}"
        self.seen[case.protocol, fast.status] += 1
        if not case.sound:
            assert fast.status != 200 or fast.get("x-model-version"), fast
            assert fast.status < 500, fast
            return
        if not case.found:
            self._check_lost(fast)
            return
        if fast.status != 200:
            problem = check_problem(fast)
            assert fast.status != 503, problem
        if not case.readable:
            assert fast.status == 415, f"a body of that type was read: {fast}"
            return
        self._check_reading(case, fast)

    def _check_lost(self, answer: Answer) -> None:
        assert answer.status in (307, 404, 405), answer
        if answer.status != 307:
            check_problem(answer)

    def _check_reading(self, case: Case, answer: Answer) -> None:
        package = self._packages[case.model]
        columns, refusal = _read(case, package)
        if columns is None:
            assert 400 <= answer.status < 500, f"read what is to be refused ({refusal})"
            self._check_blame(case, answer)
            return
        expected = _predicted(package, columns)
        if answer.status == 200:
            assert expected is not None, "an answer that is not finite"
            assert _said(case, answer) == _wanted(case, package, expected), "not the package's predictions"
        elif case.untouched or case.protocol == "native" or answer.status >= 500:
            assert expected is None, f"refused what is good: {answer}"
            assert answer.status == (422 if _is_beyond(package, columns) else 500), answer
        # else the protocol asks more of what was spoilt than the reference does

    def _check_blame(self, case: Case, answer: Answer) -> None:
        if case.blame is None or case.protocol != "native":
            return
        problem = check_problem(answer)
        shown = case.blame.field.encode("utf-8", "backslashreplace").decode()
        given = problem.get("field", "")
        assert given == shown or (len(shown) > 500 and shown.startswith(given[:-3])), f"blames {given!r}: {problem}"
        assert case.blame.row is None or problem.get("row") == case.blame.row, problem


def check_problem(answer: Answer) -> dict[str, Any]:
    """Returns the problem document of an answer, after all that it must hold was checked."""
    assert answer.get("content-type") == "application/problem+json", answer
    problem: dict[str, Any] = json.loads(answer.body)
    _PROBLEM.validate_python(problem, strict=True)
    assert problem["status"] == answer.status, answer
    assert problem["request_id"] == answer.get("x-request-id"), answer
    assert problem["type"].startswith("urn:model-release:problem:"), answer
    return problem


def _read(case: Case, package: ModelPackage) -> tuple[Columns | None, str]:
    try:
        return READERS[case.protocol](case.body, case.json_length, package.plan.inputs), ""
    except Refused as refusal:
        return None, str(refusal)


def _without_ids(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    body = answer.body
    for name in _IDS:
        if own := answer.get(name):
            body = body.replace(own.encode(), b"@")
    return answer.status, sorted((name, value) for name, value in answer.headers if name not in _UNEQUAL), body


def _predicted(package: ModelPackage, columns: Columns) -> Predictions | None:
    """Returns what the package itself predicts; None where that fails or is not finite."""
    try:
        with np.errstate(all="ignore"):
            predictions = package.predict(package.plan.packed(columns))
    except ValueError:
        return None
    return predictions if np.isfinite(_numbers(predictions)).all() else None


def _numbers(predictions: Predictions) -> npt.NDArray[np.float64]:
    numbers = predictions.values if predictions.probabilities is None else predictions.probabilities
    return np.asarray(numbers, dtype=np.float64)


def _is_beyond(package: ModelPackage, columns: Columns) -> bool:
    with np.errstate(all="ignore"):
        features = package.plan.apply(columns).values()
    return any(bool((np.abs(values) > _LIMIT).any()) for values in features if values.dtype.kind == "f")


def _wanted(case: Case, package: ModelPackage, predictions: Predictions) -> Any:
    values, numbers = predictions.values.tolist(), _numbers(predictions).tolist()
    if case.protocol == "scoring":
        return numbers
    if predictions.probabilities is None:
        return values, None
    return values, numbers


def _said(case: Case, answer: Answer) -> Any:
    length = answer.get("inference-header-content-length")
    said = json.loads(answer.body[: int(length)] if length else answer.body)
    assert answer.get("x-model-version") == VERSION, answer
    match case.protocol:
        case "scoring":
            return said["predictions"]
        case "inference":
            outputs = {output["name"]: output for output in said["outputs"]}
            labels, probabilities = outputs["predict"]["data"], outputs.get("predict_proba")
            return labels, probabilities and _shaped(probabilities["data"], probabilities["shape"])
    assert (said["model"], said["version"]) == (case.model, VERSION), said
    return said["predictions"], said.get("probabilities")


def _shaped(data: Sequence[float], shape: Sequence[int]) -> list[list[float]]:
    shaped: list[list[float]] = np.reshape(data, shape).tolist()
    return shaped
