"""A judgement as OpenMetrics text, which GitLab compares with that of the target branch at a merge request."""

from collections.abc import Iterator

from release_platform.domain.gates import Verdict
from release_platform.domain.judged import Judged


def open_metrics(judged: Judged) -> str:
    """Returns the metrics of a judgement, and of each gate whether it passed; what has no number is left out."""
    return "\n".join(_lines(judged)) + "\n"


def _lines(judged: Judged) -> Iterator[str]:
    report = judged.report
    values = {name: found.value for name, found in report.quality.items()} | dict(report.operational)
    yield "# TYPE release_metric gauge"
    for name, value in values.items():
        if value is not None:
            yield f"release_metric{_labels(judged.model, metric=name)} {float(value)!r}"
    yield "# TYPE release_gate_passed gauge"
    for gate in judged.gates:
        yield f"release_gate_passed{_labels(judged.model, gate=gate.gate)} {int(gate.verdict is Verdict.PASSED)}"
    yield "# EOF"


def _labels(model: str, **more: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in {"model": model, **more}.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
