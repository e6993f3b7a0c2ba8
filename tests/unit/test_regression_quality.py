"""How wrong a regression really is, by labels that came: shown beside the held-out rows, and judged in the budget."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.alarms import Budget
from release_platform.domain.real_quality import RealErrors, find_errors
from release_platform.domain.reference import REAL_ERROR, REAL_LOSS, Reference, of_numbers
from release_platform.examples import diabetes
from release_platform.examples.diabetes.source import load
from release_platform.pipeline.contract import conform
from release_platform.pipeline.drift import DriftReport, run
from release_platform.pipeline.drift_reference import Known, build_reference
from release_platform.pipeline.drift_report import render_drift
from release_platform.pipeline.features import build_feature_table, golden_inputs, read_features
from release_platform.pipeline.packaging import write_package
from release_platform.pipeline.tracking import labelled_rows
from release_platform.pipeline.training import fit
from release_platform.project import read_projects

NOW = datetime(2026, 3, 8, tzinfo=UTC)
SPEC = read_projects(Path(diabetes.__file__).parents[1])[0]["diabetes"].spec
TARGET = SPEC.target.column


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    raw = conform(load(), SPEC.contract, source="diabetes")
    table = build_feature_table(raw, SPEC)
    rows = read_features(table)
    fitted = fit(SPEC, rows.features[~rows.held_out], rows.target[~rows.held_out])
    folder, golden = tmp_path_factory.mktemp("package"), golden_inputs(raw, table, SPEC)
    return write_package(folder, SPEC, fitted, rows.features[rows.held_out], golden).package


@pytest.fixture(scope="module")
def known(package: ModelPackage) -> Known:
    return build_reference(SPEC, package, conform(load(), SPEC.contract, source="diabetes"), version="1")


def errors(n_rows: int, error: float, *, spread: float = 1.0, before: float = 4.0) -> RealErrors:
    of = {"n_before": 400, "before": before, "spread_before": 3.0, "margin": 0.05}
    return RealErrors(n_rows=n_rows, error=error, spread=spread, **of)


@pytest.mark.parametrize(
    ("n_rows", "error", "fell"),
    [
        (1000, 4.0, False),
        (1000, 4.2, False),  # exactly the margin
        (1000, 4.8, True),
        (29, 40.0, False),  # too few rows to say it
        (30, 40.0, True),
        (1000, 0.0, False),
    ],
)
def test_the_error_grew_only_where_the_whole_interval_is_beyond_the_margin(n_rows, error, fell):
    assert errors(n_rows, error).fell is fell


def test_the_real_ratio_is_in_the_interval_in_19_of_20_cases():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        before = of_numbers(np.abs(rng.normal(size=300)))
        reference = Reference(model="m", version="1", columns={}, outputs={}, labels={REAL_ERROR: before}, floors={})
        found = find_errors(reference, np.abs(rng.normal(size=100)) * 1.3, 0.05)
        held += found.grew_by[0] <= 0.3 <= found.grew_by[1]

    assert 0.92 <= held / 400 <= 0.98


def test_labels_that_are_no_numbers_and_references_without_errors_say_nothing():
    reference = Reference(model="m", version="1", columns={}, outputs={}, floors={})
    with_errors = Reference(
        model="m", version="1", columns={}, outputs={}, labels={REAL_ERROR: of_numbers(np.arange(9.0))}, floors={}
    )

    assert find_errors(reference, np.ones(50), 0.05) is None
    assert find_errors(with_errors, np.array([np.nan, 1.0]), 0.05) is None
    assert find_errors(with_errors, np.array([np.nan, 1.0, 2.0]), 0.05).n_rows == 2


class TestDiabetes:
    def report(self, known: Known, package: ModelPackage, label: pd.Series) -> DriftReport:
        frame = load().drop(columns=TARGET)
        labelled = labelled_rows(frame.assign(label=label), package)
        of = {"positive": None, "budget": Budget(), "at": NOW, "source": "rows", "labelled": labelled}
        return run(known, package, frame, **of)

    def test_labels_like_those_of_the_training_data_show_the_error_of_the_held_out_rows(self, known, package):
        report = self.report(known, package, load()[TARGET])

        assert isinstance(report.real, RealErrors)
        assert 0.8 < report.real.error / report.real.before < 1.2
        assert not report.real.fell
        assert REAL_ERROR not in report.columns
        assert REAL_LOSS not in known.reference.labels
        assert report.real.said in render_drift(report)

    def test_a_world_in_which_the_same_rows_come_to_other_numbers_is_told_first_and_alarms(self, known, package):
        report = self.report(known, package, load()[TARGET] + 120)

        assert report.real.fell
        assert not report.is_fine
        assert report.said.startswith("442 rows whose labels came have a mean absolute error of ")
        assert {REAL_ERROR, "label"} <= set(report.columns)
        assert "age" not in report.columns
        assert report.to_json()["real_quality"]["grew_by"][0] > 0.5
