"""The page says what was measured, needs nothing from outside, and trusts no text; the plots are images that fit it."""

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from release_platform.domain.evidence import QUANTILES, Baseline, Comparison, EvaluationReport, Measurement
from release_platform.domain.gate_spec import GateSpec
from release_platform.domain.gates import GateResult, Verdict, judge_all
from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions
from release_platform.pipeline import plots
from release_platform.pipeline.plots import draw, draw_importance, importance
from release_platform.pipeline.report import render_html

REPORT = EvaluationReport(
    model="credit_risk",
    model_digest="sha256:m",
    package_digest="sha256:p",
    data_fingerprint="sha256:d",
    n_training_rows=3_000,
    n_rows=1_234,
    quality={
        "roc_auc": Measurement(value=0.91234, lower=0.9, upper=0.92, n_rows=1_234),
        "recall": Measurement(value=None, n_rows=1_234),
    },
    slices={"region": {"<north & south>": {"roc_auc": Measurement(value=0.7, n_rows=12)}, "empty": {}}},
    operational={"package_bytes": 123_456.0, "latency_p99_ms": None},
    baseline=Baseline(
        version="7",
        digest="sha256:b",
        comparisons={"roc_auc": Comparison(candidate=0.9, production=0.8, improvement=0.1, quantiles=QUANTILES)},
    ),
    notes=("did not convert to ONNX <script>alert(1)</script>",),
)
GATES = judge_all(
    (
        GateSpec(name="auc", metric="roc_auc", minimum=0.8),
        GateSpec(name="found", metric="recall", minimum=0.5),
        GateSpec(name="small", metric="package_bytes", maximum=10.0, blocking=False),
    ),
    REPORT,
)


class Page(HTMLParser):
    """What a page is made of."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[Mapping[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(
    report: EvaluationReport = REPORT,
    gates: tuple[GateResult, ...] = GATES,
    images: Mapping[str, bytes] | None = None,
    identity: Mapping[str, str] | None = None,
) -> Page:
    return Page(render_html(report, gates, images or {}, identity or {}))


class TestPage:
    def test_it_is_well_formed_and_says_everything(self) -> None:
        page = page_of()
        assert page.open == []
        numbers = ("1,234", "0.9123", "0.9 to 0.92", "123,456", "+0.1")
        for text in (
            "credit_risk",
            *numbers,
            "Version 7",
            "(advisory)",
            "sha256:d",
            REPORT.digest,
            *(gate.reason for gate in GATES),
        ):
            assert text in page.text

    def test_it_loads_nothing_and_runs_nothing(self) -> None:
        html = render_html(REPORT, GATES, {"roc": b"\x89PNG"}, {"MLflow run": "https://mlflow/run/1"})
        page = Page(html)
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
        assert [str(image["src"])[:22] for image in page.all("img")] == ["data:image/png;base64,"]
        assert not re.search(r"url\(|@import", html)

    def test_text_from_data_is_escaped(self) -> None:
        page = page_of(identity={"Run": "<img src=x onerror=alert(1)>"})
        assert page.all("script") == page.all("img") == []
        assert "<north & south>" in page.text
        assert "<script>alert(1)</script>" in page.text

    def test_only_web_addresses_become_links(self) -> None:
        page = page_of(identity={"Run": "http://x/1?a=1&b=2", "Bad": "javascript:alert(1)"})
        assert page.all("a") == [{"href": "http://x/1?a=1&b=2"}]

    @pytest.mark.parametrize(
        ("gates", "sentence"),
        [
            (GATES, "1 of 2 blocking gates did not pass: found"),
            (GATES[:1], "All 1 blocking gates passed"),
            ((), "No blocking gate was judged"),
            (GATES[2:], "No blocking gate was judged"),
        ],
    )
    def test_the_outcome_is_said_first(self, gates: tuple[GateResult, ...], sentence: str) -> None:
        assert sentence in page_of(gates=gates).text.partition("Quality gates")[0]

    def test_the_worst_verdict_colours_the_outcome(self) -> None:
        failed = replace(GATES[0], verdict=Verdict.FAILED)
        outcome = page_of(gates=(*GATES, failed)).all("p")[1]
        assert outcome["class"] == "outcome failed"

    def test_a_first_release_without_slices_and_notes_says_so_and_no_more(self) -> None:
        page = page_of(replace(REPORT, baseline=None, slices={}, notes=()))
        assert "First release" in page.text
        assert "Slices" not in page.text
        assert "Notes" not in page.text

    def test_a_production_that_could_not_be_compared_is_said(self) -> None:
        page = page_of(replace(REPORT, baseline=Baseline(version="7", digest="sha256:b", comparisons={})))
        assert "No metric could be compared" in page.text

    def test_each_image_has_a_text_and_the_bytes_that_were_given(self) -> None:
        image = page_of(images={"calibration": b"\x89PNG calibration", "own": b"x"}).all("img")[0]
        assert "predicted probability" in str(image["alt"])
        assert b64decode(str(image["src"]).partition(",")[2]) == b"\x89PNG calibration"

    def test_tables_have_header_cells_with_a_scope(self) -> None:
        assert all(cell.get("scope") in {"row", "col"} for cell in page_of().all("th"))


LABELS = np.array(["no", "yes"], dtype=object)


def say(scores: np.ndarray) -> Predictions:
    return Predictions(values=LABELS[(scores > 0.5).astype(int)], probabilities=np.column_stack([1 - scores, scores]))


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


class TestPlots:
    def test_a_binary_model_has_four(self) -> None:
        rng = np.random.default_rng(0)
        truth, scores = LABELS[rng.integers(0, 2, 143)], rng.random(143)
        found = draw(Task.BINARY, truth, say(scores), ("no", "yes"), 1)
        assert list(found) == ["roc", "precision_recall", "calibration", "confusion"]
        assert {size_of(png)[0] for png in found.values()} == {540}

    def test_with_one_class_only_the_curves_are_left_out(self) -> None:
        found = draw(Task.BINARY, LABELS[np.zeros(5, dtype=int)], say(np.full(5, 0.2)), ("no", "yes"), 1)
        assert list(found) == ["calibration", "confusion"]

    def test_a_multiclass_model_has_two_however_its_classes_are_named(self) -> None:
        rng = np.random.default_rng(0)
        classes = tuple(f"$a_{i} with a very long name" for i in range(35))
        labels = np.array(classes, dtype=object)
        given = rng.dirichlet(np.ones(35), 200)
        said = Predictions(values=labels[given.argmax(axis=1)], probabilities=given)
        assert list(draw(Task.MULTICLASS, labels[rng.integers(0, 35, 200)], said, classes, None)) == [
            "calibration",
            "confusion",
        ]

    @pytest.mark.parametrize("spread", [0.0, 1.0])
    def test_a_regression_has_two(self, spread: float) -> None:
        truth = np.random.default_rng(0).normal(10, spread, 50)
        found = draw(Task.REGRESSION, truth, Predictions(values=truth + 1), (), None, unit="minutes")
        assert list(found) == ["predicted_vs_true", "residuals"]

    @pytest.mark.parametrize("values", [[], [1.0, np.nan]])
    def test_without_rows_or_with_nan_there_is_nothing_to_draw(self, values: list[float]) -> None:
        of = np.array(values, dtype=np.float64)
        assert draw(Task.REGRESSION, np.ones(len(of)), Predictions(values=of), (), None) == {}

    def test_a_curve_is_thinned_and_keeps_its_ends(self) -> None:
        x = np.linspace(0, 1, 80_000)
        thin_x, thin_y = plots._thin(x, x**2)
        assert len(thin_x) <= 500
        assert (thin_x[0], thin_x[-1], thin_y[-1]) == (0.0, 1.0, 1.0)
        assert np.abs(np.interp(x, thin_x, thin_y) - x**2).max() < 1e-4

    def test_a_plot_is_the_same_bytes_each_time(self) -> None:
        truth = np.arange(30.0)
        first, again = (draw(Task.REGRESSION, truth, Predictions(values=truth + 1), (), None) for _ in range(2))
        assert first == again


def answer(columns: Mapping[str, np.ndarray]) -> Predictions:
    return say(np.clip(columns["strong"] * 0.8 + columns["weak"] * 0.2, 0, 1))


def columns_of(n_rows: int, n_idle: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random(n_rows) for name in ("strong", "weak", *(f"idle_{i}" for i in range(n_idle)))}


class TestImportance:
    def test_the_column_that_decides_comes_first_and_an_idle_one_is_worth_nothing(self) -> None:
        columns = columns_of(3_000)
        found = importance(answer, columns, Task.BINARY, answer(columns).values, ("no", "yes"), 1, seed=0)
        assert list(found.losses) == ["strong", "weak", "idle_0"]
        assert found.losses["strong"] > found.losses["weak"] > found.losses["idle_0"] == 0
        assert (found.metric, found.n_rows, found.notes) == ("roc_auc", 2_000, ())
        assert size_of(draw_importance(found) or b"")[0] == 540

    def test_a_loss_is_positive_for_an_error_too(self) -> None:
        columns = columns_of(500)
        found = importance(answer, columns, Task.BINARY, answer(columns).values, ("no", "yes"), 1, 0, metric="log_loss")
        assert found.losses["strong"] > 0

    def test_columns_beyond_the_first_30_are_noted(self) -> None:
        columns = columns_of(100, n_idle=38)
        found = importance(answer, columns, Task.BINARY, answer(columns).values, ("no", "yes"), 1, seed=0)
        assert len(found.losses) == 30
        assert found.notes == ("only the first 30 of 40 columns",)

    def test_it_stops_after_three_seconds_and_says_so(self) -> None:
        def seconds() -> Iterator[float]:
            yield from (0.0, 1.0, 3.0, 3.1)

        ticks = seconds()
        columns = columns_of(100)
        truth = answer(columns).values
        found = importance(answer, columns, Task.BINARY, truth, ("no", "yes"), 1, 0, clock=lambda: next(ticks))
        assert set(found.losses) == {"strong", "weak"}
        assert found.notes == ("stopped after 3 s, before 'idle_0'",)

    @pytest.mark.parametrize("n_rows", [0, 5])
    def test_where_the_metric_is_undefined_there_is_nothing_to_show(self, n_rows: int) -> None:
        truth = np.full(n_rows, "no", dtype=object)
        found = importance(answer, columns_of(n_rows), Task.BINARY, truth, ("no", "yes"), 1, seed=0)
        assert found.losses == {}
        assert "undefined" in found.notes[0]
        assert draw_importance(found) is None
