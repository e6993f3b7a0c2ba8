"""A model card as a page and as Markdown, both from the same sections."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_platform.domain.card import ModelCard
from release_platform.domain.evidence import Measurement
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.metrics import METRICS
from release_platform.domain.percent import percent
from release_platform.pipeline.markdown import cell, table

if TYPE_CHECKING:
    from jinja2 import Template

_NOTHING = "\N{EN DASH}"
_LIBRARIES = "version."


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of a card.

    Attributes:
        title: Its title.
        lines: Sentences.
        pairs: Names and values.
        columns: The head of a table; empty without one.
        rows: Its rows.
    """

    title: str
    lines: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def card_html(card: ModelCard) -> str:
    """Returns the card as one page that needs nothing else; all text is escaped."""
    return _template().render(card=card, sections=list(_sections(card)))


def card_markdown(card: ModelCard) -> str:
    """Returns the card as Markdown; no text of the data becomes markup."""
    lines = [f"# {cell(card.name)} version {cell(card.version)}", "", f"Stands: {cell(card.stands)}.", ""]
    for section in _sections(card):
        lines += [f"## {cell(section.title)}", ""]
        lines += [f"- {cell(line)}" for line in section.lines]
        lines += [f"- {cell(name)}: {cell(value)}" for name, value in section.pairs]
        if section.columns:
            lines += [""] if section.lines or section.pairs else []
            lines += table(section.columns, section.rows) if section.rows else ["None."]
        lines.append("")
    return "\n".join(lines)


def _sections(card: ModelCard) -> Iterator[Section]:
    yield Section(title="What it is", pairs=tuple(_identity(card)))
    yield Section(title="Intended use and limits", lines=tuple(_use(card)))
    yield _data(card)
    yield from _ranges(card)
    yield _metrics(card)
    yield from _slices(card)
    yield _gates(card)
    yield _comparison(card)
    yield Section(title="Code and surroundings", pairs=tuple(_lineage(card)))
    yield _moves(card)
    yield _approvals(card)


def _identity(card: ModelCard) -> Iterator[tuple[str, str]]:
    spec, of = card.spec, card.lineage.registration
    yield "description", str(spec.get("description") or "none was written")
    yield "owner", str(spec.get("owner", ""))
    yield "task", f"{spec.get('task')}: predicts {spec.get('target', {}).get('column')}"
    yield "estimator", str(spec.get("estimator", {}).get("type", ""))
    for name, value in card.lineage.parameters.items():
        if name.startswith("estimator.") and name != "estimator.type":
            yield name, value
    yield "registered", of.registered_at.isoformat()
    yield "digest", of.digest
    yield "model digest", of.model_digest
    yield "signed", "yes, at registration" if "release.signature" in of.tags else "no signature is kept"


def _use(card: ModelCard) -> Iterator[str]:
    yield str(
        card.spec.get("intended_use") or "intended use: none was written; `intended_use` in the defs.yaml says it"
    )
    yield from card.limits


def _data(card: ModelCard) -> Section:
    found = card.lineage
    pairs = [("source", f"{kind}: {where}") for kind, where in found.source.items()]
    pairs += [
        ("fingerprint", found.registration.fingerprint),
        ("training rows", f"{card.report.n_training_rows:,}"),
        ("held-out rows", f"{card.report.n_rows:,}, chosen {_split(card.spec)}"),
    ]
    rows = [(key, f"{data.n_rows:,}", data.digest) for key, data in sorted(found.data.items())]
    return Section(title="Data", pairs=tuple(pairs), columns=("snapshot", "rows", "fingerprint"), rows=tuple(rows))


def _ranges(card: ModelCard) -> Iterator[Section]:
    if card.ranges:
        line = "Other values are none that it was trained on, so nothing is known of its answers to them."
        columns = ("column", "the data it was trained on held")
        yield Section(title="Ranges of the data", lines=(line,), columns=columns, rows=tuple(card.ranges.items()))


def _split(spec: Mapping[str, Any]) -> str:
    split = spec.get("split", {})
    by = f" by {split['column']}" if split.get("column") else ""
    return f"{split.get('strategy', 'random')}{by}"


def _metrics(card: ModelCard) -> Section:
    rows = [(name, _number(m.value), _interval(m), METRICS[name].meaning) for name, m in card.report.quality.items()]
    rows += [(name, _number(value), _NOTHING, METRICS[name].meaning) for name, value in card.report.operational.items()]
    return Section(title="Metrics", columns=("metric", "value", "95 % interval", "meaning"), rows=tuple(rows))


def _slices(card: ModelCard) -> Iterator[Section]:
    for column, values in card.report.slices.items():
        names = list(next(iter(values.values()), {}))
        rows = [
            (
                key,
                f"{max((m.n_rows for m in of.values()), default=0):,}",
                *(_with_interval(of.get(name)) for name in names),
            )
            for key, of in values.items()
        ]
        yield Section(title=f"Slices of {column}", columns=(column, "rows", *names), rows=tuple(rows))


def _gates(card: ModelCard) -> Section:
    rows = [
        (
            gate.gate if gate.blocking else f"{gate.gate} (advisory)",
            gate.verdict.value,
            _number(gate.value),
            _NOTHING if gate.limit is None else f"{gate.direction} {gate.limit:.6g}",
            gate.reason,
        )
        for gate in card.lineage.registration.gates
    ]
    return Section(
        title="Gates at registration", columns=("gate", "verdict", "value", "limit", "why"), rows=tuple(rows)
    )


def _comparison(card: ModelCard) -> Section:
    baseline = card.report.baseline
    if baseline is None:
        return Section(title="Compared with", lines=("nothing: nothing was in Production",))
    rows = [
        (name, _number(of.candidate), _number(of.production), f"{of.improvement + 0.0:+.4g}")
        for name, of in baseline.comparisons.items()
    ]
    columns = ("metric", "this version", baseline.named, "improvement")
    return Section(title="Compared with", lines=(baseline.named,), columns=columns, rows=tuple(rows))


def _lineage(card: ModelCard) -> Iterator[tuple[str, str]]:
    found = card.lineage
    for name in ("git_commit", "git_dirty", "lock", "python", "platform"):
        if name in found.environment:
            yield name.replace("_", " "), found.environment[name]
    libraries = {n.removeprefix(_LIBRARIES): v for n, v in found.environment.items() if n.startswith(_LIBRARIES)}
    yield "libraries", ", ".join(f"{name} {version}" for name, version in libraries.items()) or _NOTHING
    yield "code version", found.registration.code_version
    yield "MLflow run", found.registration.mlflow_run_id
    yield "Dagster run", found.registration.dagster_run_id
    yield from found.links.items()
    for sentence in found.disagreements:
        yield "the systems disagree", sentence
    for sentence in found.missing:
        yield "not known", sentence


def _moves(card: ModelCard) -> Section:
    rows = [
        (str(move.row.epoch), _move(move.row), move.row.actor, move.row.reason, move.row.at)
        for move in card.lineage.moves
    ]
    return Section(title="Moves", columns=("epoch", "move", "who", "why", "when"), rows=tuple(rows))


def _move(row: LedgerRow) -> str:
    return row.move.value if row.weight is None else f"{row.move}, {percent(row.weight)}"


def _approvals(card: ModelCard) -> Section:
    asked = [(r.request_id, "asked", r.actor, r.reason, r.requested_at.isoformat()) for r in card.lineage.requests]
    approved = [
        (
            a.approval.request_id,
            f"approved, {a.state}",
            a.approval.actor,
            a.approval.reason,
            a.approval.approved_at.isoformat(),
        )
        for a in card.lineage.approvals
    ]
    rows = tuple(sorted([*asked, *approved], key=lambda row: row[4]))
    return Section(title="Requests and approvals", columns=("request", "what", "who", "why", "when"), rows=rows)


def _number(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _interval(found: Measurement) -> str:
    return _NOTHING if found.lower is None else f"{_number(found.lower)} to {_number(found.upper)}"


def _with_interval(found: Measurement | None) -> str:
    if found is None:
        return _NOTHING
    return _number(found.value) + ("" if found.lower is None else f" ({_interval(found)})")


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("card.html.j2")
