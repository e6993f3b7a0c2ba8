"""A candidate that was judged outside of a release: by its gates, beside what it would replace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from release_platform.domain.evidence import EvaluationReport
from release_platform.domain.gate_spec import Against, GateSpec
from release_platform.domain.gates import GateResult, Verdict, judge_all

NOT_COMPARED = "not compared"
"""What the reason of a gate begins with that had nothing to compare with."""

_LISTED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What differs from what the candidate was compared with, a sentence each; None where that is not known.

    Attributes:
        data: The raw data, by column and block of rows.
        code: Source files.
        parameters: Keys of the `defs.yaml`.
    """

    data: tuple[str, ...] | None = None
    code: tuple[str, ...] | None = None
    parameters: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What came of judging a candidate.

    Attributes:
        model: The model's name.
        subject: What was judged, in words: a commit, or a version.
        report: The numbers.
        gates: The result of each gate over them.
        changes: What differs from what it was compared with.
    """

    model: str
    subject: str
    report: EvaluationReport
    gates: tuple[GateResult, ...]
    changes: Changes

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The blocking gates that did not pass."""
        return tuple(gate for gate in self.gates if gate.blocking and not gate.passed)

    @property
    def passed(self) -> bool:
        """Whether every blocking gate passed."""
        return not self.failed

    @property
    def compared_with(self) -> str | None:
        """What the candidate was compared with, in words; None for nothing."""
        return None if self.report.baseline is None else self.report.baseline.named

    def to_json(self) -> dict[str, Any]:
        """Returns the judgement as a JSON value."""
        return {
            "model": self.model,
            "subject": self.subject,
            "passed": self.passed,
            "compared_with": self.compared_with,
            "gates": [gate.to_json() for gate in self.gates],
            "changes": {
                "data": _listed(self.changes.data),
                "code": _listed(self.changes.code),
                "parameters": _listed(self.changes.parameters),
            },
            "report": self.report.to_json(),
        }


def _listed(sentences: tuple[str, ...] | None) -> list[str] | None:
    return None if sentences is None else list(sentences)


def judge_candidate(
    gates: tuple[GateSpec, ...], report: EvaluationReport, *, unknown: str = ""
) -> tuple[GateResult, ...]:
    """Returns the result of each gate over a candidate that is not being released.

    Args:
        gates: The gates.
        report: What was measured.
        unknown: Why nobody here can say which version is in Production; empty where that is known. Then a gate against
            Production is inconclusive and decides nothing here: it is judged when the version is registered.
    """
    results = judge_all(gates, report)
    if not unknown:
        return results
    relative = {gate.name for gate in gates if gate.against is Against.PRODUCTION}
    return tuple(
        replace(result, verdict=Verdict.INCONCLUSIVE, blocking=False, reason=unknown)
        if result.gate in relative
        else result
        for result in results
    )


def key_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns a sentence for each key of two specs, as JSON values, that differs.

    Items of a list that have a name are told apart by it, so that a gate that is moved is no change.
    """
    was, now = _flat(before), _flat(after)
    said = []
    for key in sorted(was.keys() | now.keys()):
        if key not in was:
            said.append(f"{key}: new, {_short(now[key])}")
        elif key not in now:
            said.append(f"{key}: gone, was {_short(was[key])}")
        elif was[key] != now[key]:
            said.append(f"{key}: {_short(was[key])} -> {_short(now[key])}")
    return tuple(said)


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    match value:
        case dict() if value:
            parts = [(str(key), part) for key, part in value.items()]
        case [dict(), *_] if all(isinstance(item, dict) and "name" in item for item in value):
            parts = [(str(item["name"]), {k: v for k, v in item.items() if k != "name"}) for item in value]
        case _:
            return {place: value}
    found: dict[str, Any] = {}
    for key, part in parts:
        found |= _flat(part, f"{place}.{key}" if place else key)
    return found


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    return text if len(text) <= _LISTED else f"{text[: _LISTED - 3]}..."
