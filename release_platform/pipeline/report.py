"""The evaluation report as one page that people read: a single HTML file that needs nothing else."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from release_platform.domain.evidence import EvaluationReport, Measurement
from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.metrics import METRICS

if TYPE_CHECKING:
    from jinja2 import Template

_NOTHING = "\N{EN DASH}"

_PLOTS = {
    "roc": ("ROC curve", "True positive rate over false positive rate, for every threshold."),
    "precision_recall": ("Precision and recall", "Precision over recall, for every threshold."),
    "calibration": ("Calibration", "Share that came true over predicted probability, with the share of rows per bin."),
    "confusion": ("Confusion", "Rows by true and by predicted class, coloured by the share of the true class."),
    "predicted_vs_true": ("Predicted and true values", "Predicted value over true value, one dot per row."),
    "residuals": ("Residuals", "Distribution of predicted minus true value."),
    "importance": ("Permutation importance", "How much worse the model is when a column is shuffled, by column."),
}


def render_html(
    report: EvaluationReport, gates: Sequence[GateResult], plots: Mapping[str, bytes], identity: Mapping[str, str]
) -> str:
    """Returns the page: identity, gates, metrics, comparison, slices, plots and notes.

    Styles and images are inside; it loads nothing and runs no script. All text from data is escaped.

    Args:
        report: What was measured.
        gates: The result of each gate over it.
        plots: PNG bytes by name, shown in this order; see `plots.draw`.
        identity: More lines for the identity, such as the run; a value that starts with `http://` or `https://`
            becomes a link. Lines about the report itself (model, digests, fingerprint) come first, unasked.
    """
    own = {
        "model": report.model,
        "report digest": report.digest,
        "package digest": report.package_digest,
        "model digest": report.model_digest,
        "data fingerprint": report.data_fingerprint,
    }
    if report.baseline is not None:
        own["Production version"] = f"{report.baseline.version} ({report.baseline.digest})"
    return _template().render(
        report=report,
        gates=gates,
        outcome=_outcome(gates),
        plots=[_plot(name, data) for name, data in plots.items()],
        identity={**own, **identity},
        metrics=METRICS,
    )


def _outcome(gates: Sequence[GateResult]) -> dict[str, str]:
    blocking = [gate for gate in gates if gate.blocking]
    open_gates = [gate for gate in blocking if not gate.passed]
    if not blocking:
        return {"verdict": Verdict.INCONCLUSIVE.value, "sentence": "No blocking gate was judged: nothing is released"}
    if not open_gates:
        return {"verdict": Verdict.PASSED.value, "sentence": f"All {len(blocking)} blocking gates passed"}
    worst = max((gate.verdict for gate in open_gates), key=list(Verdict).index)
    names = ", ".join(gate.gate for gate in open_gates)
    return {
        "verdict": worst.value,
        "sentence": f"{len(open_gates)} of {len(blocking)} blocking gates did not pass: {names}",
    }


def _plot(name: str, data: bytes) -> dict[str, str]:
    title, alt = _PLOTS.get(name, (name, name))
    return {"title": title, "alt": alt, "data": b64encode(data).decode()}


def _number(value: float | None) -> str:
    if value is None:
        return _NOTHING
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.1f}"


def _signed(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:+.4g}"


def _ends(of: Measurement) -> str:
    return _NOTHING if of.lower is None else f"{_number(of.lower)} to {_number(of.upper)}"


def _rows(of: Mapping[str, Measurement]) -> str:
    return _number(max((m.n_rows for m in of.values()), default=None))


def _is_address(value: str) -> bool:
    return value.startswith(("http://", "https://"))


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
    environment.filters |= {
        "number": _number,
        "signed": _signed,
        "ends": _ends,
        "rows": _rows,
        "is_address": _is_address,
    }
    return environment.get_template("report.html.j2")
