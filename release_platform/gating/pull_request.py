"""A judgement as Markdown, for the summary of a pull request."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from release_platform.domain.errors import ReleaseError
from release_platform.domain.evidence import Comparison, Measurement
from release_platform.domain.gates import GateResult
from release_platform.domain.judged import Judged
from release_platform.domain.metrics import METRICS
from release_platform.pipeline.markdown import cell

MAXIMUM_BYTES = 60_000
"""GitHub takes comments of up to 65,536 characters."""
_LINES = 30
_NOTHING = "\N{EN DASH}"


def pull_request(judged: Judged) -> str:
    """Returns the summary: gates with limits, metrics against what it would replace, slices, what changed."""
    outcome = "passed" if judged.passed else f"{len(judged.failed)} blocking gate(s) did not pass"
    parts: list[Iterable[str]] = [
        [f"## {judged.model}: {outcome}", "", _subject(judged), ""],
        _gates(judged.gates),
        _metrics(judged),
        _changes(judged),
        _notes(judged.report.notes),
        _slices(judged.report.slices),
    ]
    text = "\n".join(line for part in parts for line in part)
    if len(text) <= MAXIMUM_BYTES:
        return text + "\n"
    return text[:MAXIMUM_BYTES].rsplit("\n", 1)[0] + "\n\n(shortened; `--json` has all of it)\n"


def pull_request_error(model: str, error: ReleaseError) -> str:
    """Returns the summary of a model that could not be judged."""
    return f"## {model}: could not be judged\n\n```text\n{error.problem}\n```\n\n{cell(error.remedy)}\n"


def _subject(judged: Judged) -> str:
    report = judged.report
    beside = f"compared with {judged.compared_with}" if judged.compared_with else "compared with nothing"
    rows = f"{report.n_training_rows:,} training rows, {report.n_rows:,} held-out rows"
    return f"{judged.subject}; {beside}; {rows}."


def _gates(gates: Sequence[GateResult]) -> Iterator[str]:
    yield "| gate | verdict | value | limit | why |"
    yield "|---|---|---|---|---|"
    for gate in sorted(gates, key=lambda gate: gate.passed):
        limit = _NOTHING if gate.limit is None else f"{gate.direction} {_limit(gate.limit)}"
        verdict = gate.verdict.value if gate.passed else f"**{gate.verdict.value}**"
        name = gate.gate if gate.blocking else f"{gate.gate} (advisory)"
        yield f"| {name} | {verdict} | {_number(gate.value)} | {limit} | {cell(gate.reason)} |"
    yield ""


def _metrics(judged: Judged) -> Iterator[str]:
    report = judged.report
    comparisons = {} if report.baseline is None else report.baseline.comparisons
    yield "### Metrics"
    yield ""
    if comparisons:
        yield f"| metric | better | candidate | 95 % interval | {judged.compared_with} | improvement | 95 % interval |"
        yield "|---|---|---|---|---|---|---|"
    else:
        yield "| metric | better | candidate | 95 % interval |"
        yield "|---|---|---|---|"
    for name, found in report.quality.items():
        row = f"| {name} | {METRICS[name].direction} | {_number(found.value)} | {_interval(found)} |"
        yield row + (_against(comparisons.get(name)) if comparisons else "")
    for name, value in report.operational.items():
        row = f"| {name} | {METRICS[name].direction} | {_number(value)} | {_NOTHING} |"
        yield row + (_against(None) if comparisons else "")
    yield ""


def _against(found: Comparison | None) -> str:
    if found is None:
        return f" {_NOTHING} | {_NOTHING} | {_NOTHING} |"
    lower, upper = found.bound(0.025), found.bound(0.975)
    span = _NOTHING if lower is None or upper is None else f"{lower:+.4g} to {upper:+.4g}"
    return f" {_number(found.production)} | {found.improvement + 0.0:+.4g} | {span} |"


def _changes(judged: Judged) -> Iterator[str]:
    if judged.compared_with is None:
        return
    yield f"### Changed since {judged.compared_with}"
    yield ""
    changes = judged.changes
    for name, found in (("data", changes.data), ("code", changes.code), ("parameters", changes.parameters)):
        if found is None:
            yield f"- {name}: not known"
        elif not found:
            yield f"- {name}: nothing"
        else:
            yield f"- {name}:"
            yield from _listed(found, "  - ")
    yield ""


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield "### Notes"
        yield ""
        yield from _listed(notes, "- ")
        yield ""


def _listed(sentences: Sequence[str], mark: str) -> Iterator[str]:
    for sentence in sentences[:_LINES]:
        yield f"{mark}{cell(sentence)}"
    if len(sentences) > _LINES:
        yield f"{mark}and {len(sentences) - _LINES:,} more"


def _slices(slices: Mapping[str, Mapping[str, Mapping[str, Measurement]]]) -> Iterator[str]:
    for column, values in slices.items():
        names = list(next(iter(values.values()), {}))
        yield f"<details><summary>Slices of {cell(column)}</summary>"
        yield ""
        yield f"| {cell(column)} | rows | {' | '.join(names)} |"
        yield "|---|---|" + "---|" * len(names)
        for key, of in values.items():
            rows = max((m.n_rows for m in of.values()), default=0)
            yield f"| {cell(key)} | {rows:,} | {' | '.join(_value(of.get(name)) for name in names)} |"
        yield ""
        yield "</details>"
        yield ""


def _limit(value: float) -> str:
    return _number(value) if float(value).is_integer() else f"{value:.6g}"


def _value(found: Measurement | None) -> str:
    return _NOTHING if found is None else _number(found.value)


def _interval(found: Measurement) -> str:
    return _NOTHING if found.lower is None else f"{_number(found.lower)} to {_number(found.upper)}"


def _number(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"
