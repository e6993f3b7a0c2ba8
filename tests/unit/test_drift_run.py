"""A run over recorded rows with a real package: what is read of them, what drifted, the page, and the recordings."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.model_package import ModelPackage
from release_platform.adapters.recordings import Recordings, read_parquet
from release_platform.domain.alarms import Budget
from release_platform.domain.errors import SourceError
from release_platform.domain.estimation import Quality
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER
from release_platform.domain.reference import LABEL as TRUE_LABEL
from release_platform.domain.reference import REAL_ERROR, REAL_LOSS, REFUSED_CALLS
from release_platform.domain.refusals import OTHER, Calls, Reason
from release_platform.pipeline.contract import conform
from release_platform.pipeline.drift import DriftReport, run
from release_platform.pipeline.drift_days import drift_days
from release_platform.pipeline.drift_reference import Known, build_reference, errors_of, losses_of, windows_of
from release_platform.pipeline.drift_report import markdown, render_drift
from release_platform.pipeline.drift_rows import PREDICTION, SCORE, class_text, read_rows
from release_platform.pipeline.features import build_feature_table, golden_inputs, read_features
from release_platform.pipeline.kept_reference import read_reference, reference_bytes
from release_platform.pipeline.packaging import write_package
from release_platform.pipeline.tracking import Labelled, labelled_rows, tell, track
from release_platform.pipeline.training import fit
from release_platform.project import parse_spec

NOW = datetime(2026, 3, 8, tzinfo=UTC)
SPEC = parse_spec(
    {
        "name": "orders",
        "task": "binary",
        "owner": "team:ml",
        "source": {"csv": "orders.csv"},
        "contract": {
            "columns": {
                "placed": {"type": "timestamp"},
                "amount": {"type": "number"},
                "age": {"type": "number", "nullable": True},
                "city": {"type": "category"},
                "late": {"type": "category", "allowed": ["no", "yes"]},
            }
        },
        "target": {"column": "late", "positive": "yes"},
        "features": ["amount", "age", "city", {"name": "hour", "operation": "hour", "of": ["placed"]}],
        "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
        "gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.6}],
    },
    file=Path("defs.yaml"),
)


def orders(seed: int, n_days: int, *, first: str = "2026-01-01", shift: float = 0.0) -> pd.DataFrame:
    rng, n = np.random.default_rng(seed), n_days * 150
    minutes = np.sort(rng.integers(n_days * 1440, size=n))
    amount = rng.normal(size=n) + shift
    return pd.DataFrame(
        {
            "placed": pd.Timestamp(first) + pd.to_timedelta(minutes, unit="min"),
            "amount": amount,
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(40, 10, size=n)),
            "city": rng.choice(["Ulm", "Bonn", "<b>Kiel"], size=n, p=[0.6, 0.3, 0.1]),
            "late": np.where(rng.random(n) < 1 / (1 + np.exp(-1.5 * amount)), "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    raw = conform(orders(1, 40), SPEC.contract, source="orders")
    table = build_feature_table(raw, SPEC)
    rows = read_features(table)
    fitted = fit(SPEC, rows.features[~rows.held_out], rows.target[~rows.held_out])
    folder = tmp_path_factory.mktemp("package")
    return write_package(folder, SPEC, fitted, rows.features[rows.held_out], golden_inputs(raw, table, SPEC)).package


@pytest.fixture(scope="module")
def known(package: ModelPackage) -> Known:
    return build_reference(SPEC, package, conform(orders(1, 40), SPEC.contract, source="orders"), version="1")


def recorded(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="late").assign(at=frame["placed"])


def report_of(known: Known, package: ModelPackage, frame: pd.DataFrame) -> DriftReport:
    return run(known, package, frame, positive="yes", budget=Budget(), at=NOW, source="rows")


class TestReading:
    def test_what_was_not_recorded_is_asked_of_the_model(self, package):
        rows = read_rows(recorded(orders(2, 1)), package, "yes", source="rows")

        assert set(rows.features) == {"amount", "age", "city", "hour"}
        assert set(rows.outputs) == {PREDICTION, SCORE}
        assert rows.outputs[SCORE][rows.outputs[PREDICTION] == "yes"].min() >= 0.5

    def test_of_many_rows_some_of_each_day_are_asked_and_known_answers_are_all_kept(self, package):
        frame = recorded(orders(2, 3)).assign(prediction="no")
        rows = read_rows(frame, package, "yes", source="rows", most_asked=20)
        every = read_rows(frame, package, "yes", source="rows", most_asked=None)
        days = rows.days(until=NOW)

        assert [len(day.columns[SCORE]) for day in days] == [20, 20, 20]
        assert sum(len(day.columns[PREDICTION]) for day in days) == len(frame)
        known = np.isfinite(rows.outputs[SCORE])
        assert known.sum() == len(rows.columns()[SCORE]) == 60
        assert rows.outputs[SCORE][known] == pytest.approx(every.outputs[SCORE][known])

    def test_what_was_recorded_is_taken(self, package):
        frame = recorded(orders(2, 1)).assign(prediction="no", probability=0.25)
        rows = read_rows(frame, package, "yes", source="rows")

        assert set(rows.outputs[PREDICTION]) == {"no"}
        assert set(rows.outputs[SCORE]) == {0.25}

    def test_the_recorded_probability_of_an_answer_is_that_of_the_positive_class_or_of_the_other(self, package):
        frame = recorded(orders(2, 1)).assign(prediction=["yes", "no"] * 75, confidence=0.75)
        rows = read_rows(frame, package, "yes", source="rows")

        assert rows.outputs[SCORE].tolist() == [0.75, 0.25] * 75
        assert rows.asked is None
        partly = frame.assign(confidence=[0.75, None] * 75)  # some files are of a server that told none
        assert read_rows(partly, package, "yes", source="rows").asked is not None

    def test_an_input_that_is_missing_or_no_number_is_told_and_takes_what_is_derived_with_it(self, package):
        frame = recorded(orders(2, 1)).assign(amount="much").drop(columns="placed")
        rows = read_rows(frame, package, "yes", source="rows")

        assert set(rows.features) == {"age", "city"}
        assert rows.outputs == {}
        assert rows.schema[0] == "the input 'placed' is missing" or "'amount' is no number" in rows.schema[0]
        assert len(rows.schema) == 2

    def test_days_are_in_order_whatever_the_order_of_rows(self, package):
        frame = recorded(orders(2, 3)).sample(frac=1, random_state=1)
        days = read_rows(frame, package, "yes", source="rows").days(until=NOW)

        assert [day.begins.date() for day in days] == [date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)]
        assert sum(day.n_rows for day in days) == len(frame)

    def test_rows_without_a_time_are_one_window(self, package):
        (day,) = read_rows(recorded(orders(2, 3)).drop(columns="at"), package, "yes", source="rows").days(until=NOW)

        assert (day.ends, day.n_rows) == (NOW, 450)

    def test_a_row_whose_time_is_missing_is_an_error_that_names_it(self, package):
        frame = recorded(orders(2, 1))
        frame.loc[3, "at"] = pd.NaT

        with pytest.raises(SourceError, match="row 4"):
            read_rows(frame, package, "yes", source="rows")


class TestRun:
    def test_days_like_those_before_show_no_drift(self, known, package):
        report = report_of(known, package, recorded(orders(3, 7, first="2026-03-01")))

        assert report.said == "no drift in 1,050 rows of 7 day(s)"
        assert report.together is not None
        assert report.together.auc < 0.6
        assert report.quality[Quality.ROC_AUC].lower > 0.6

    def test_a_shift_is_told_with_its_column_and_what_is_answered(self, known, package):
        report = report_of(known, package, recorded(orders(3, 7, first="2026-03-01", shift=1.0)))

        assert {"amount", SCORE, PREDICTION} <= set(report.columns)
        assert {"age", "city", "hour"}.isdisjoint(report.columns)
        assert report.alarms[0].begins.date() == date(2026, 3, 1)
        assert report.together is not None
        assert report.together.p_value < 0.001

    def test_what_only_all_columns_together_show_is_told_by_day(self, known, package):
        frame = orders(3, 14, first="2026-03-01")
        frame["age"] = frame["age"].sort_values().to_numpy()[frame["amount"].argsort().argsort()]  # the same ages
        report = report_of(known, package, recorded(frame))
        days = drift_days(report, on_alarm=(), page="p", run_url="r", at=NOW)
        alarmed = next(day for day in days if day.alarmed)

        assert report.columns == (DOMAIN_CLASSIFIER,)
        assert alarmed.statistics[DOMAIN_CLASSIFIER]["auc"] > 0.7
        assert report.to_json()["windows"][0]["domain_classifier"]["auc"] > 0.7
        assert "AUC of the domain classifier" in render_drift(report)

    def test_days_that_were_reported_before_teach_and_the_report_says_how_many(self, known, package):
        first = report_of(known, package, recorded(orders(3, 12, first="2026-03-01")))
        frames = recorded(orders(4, 1, first="2026-03-12")), recorded(orders(5, 1, first="2026-03-13"))
        history = [window.shape for window in first.windows]
        of = {"positive": "yes", "budget": Budget(), "at": NOW, "source": "rows"}
        report = run(known, package, frames[1], **of, history=history, before=frames[0])
        alone = run(known, package, frames[1], **of)

        assert [window.history.n_days for window in first.windows[8:]] == [0, 0, 10, 11]
        assert report.windows[0].shape.apart.n_judged > 50
        assert (alone.windows[0].shape.apart, alone.calibrated_on) == (None, 0)
        assert report.calibrated == "calibrated on: 12 recorded days of this model"
        assert report.calibrated in render_drift(report)
        assert report.to_json()["calibrated_on"] == 12
        assert "calibrated on: 0 days; rows are taken to be independent until 10 days are recorded" in render_drift(
            alone
        )

    def test_refused_calls_are_told_by_day_and_of_a_day_of_which_no_row_is_there(self, known, package):
        refused = Calls(answered=150, refused=50, faults={("amount", Reason.MISSING): 50})
        calls = {date(2026, 3, 2): refused, date(2026, 3, 4): Calls(refused=90, faults={(OTHER, Reason.BODY): 90})}
        of = {"positive": "yes", "budget": Budget(), "at": NOW, "source": "rows", "calls": calls}
        report = run(known, package, recorded(orders(3, 2, first="2026-03-01")), **of)
        days = drift_days(report, on_alarm=(), page="p", run_url="r", at=NOW)

        assert [(day.day.day, day.columns) for day in days] == [(1, ()), (2, (REFUSED_CALLS,)), (4, (REFUSED_CALLS,))]
        assert [day.n_rows for day in days][2] == 0
        assert days[1].statistics[REFUSED_CALLS] == {"share": 0.25, "amount: missing": 0.25}
        assert report.said == "drift in 300 rows of 3 day(s): refused calls"
        assert "25.0% of 200 calls were refused: 25.0% lacked &#39;amount&#39;" in render_drift(report)
        assert report.to_json()["windows"][1]["calls"]["refused"] == 50
        nothing = run(known, package, pd.DataFrame(), **of)
        assert (nothing.n_rows, nothing.is_fine, nothing.said) == (
            0,
            False,
            "drift in 0 rows of 2 day(s): refused calls",
        )

    def test_a_missing_input_is_drift_without_any_evidence(self, known, package):
        report = report_of(known, package, recorded(orders(3, 2)).drop(columns="city"))

        assert report.schema == ("the input 'city' is missing",)
        assert report.alarms
        assert report.quality == {}

    def test_no_rows_say_nothing(self, known, package):
        report = report_of(known, package, pd.DataFrame())

        assert report.said == "no rows: nothing can be said of drift"
        assert (report.windows, report.altogether, report.together) == ((), {}, None)
        assert "nothing can be said" in render_drift(report)

    def test_the_page_needs_nothing_else_and_escapes_what_comes_from_data(self, known, package):
        report = report_of(known, package, recorded(orders(3, 7, shift=1.0)))
        page = render_drift(report)

        assert page.count("data:image/png;base64,") == len(report.altogether)
        assert "<b>Kiel" not in page
        assert "http" not in page
        assert "<script" not in page
        assert markdown(report).splitlines()[2].startswith("| amount |")
        assert '<th class="n">p-value</th>' in page

    def test_unseen_is_empty_where_nobody_knows_it(self, known, package):
        report = report_of(known, package, recorded(orders(3, 2)).assign(city="Rom"))
        row = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in markdown(report).splitlines()}

        assert row["city"][-1] == "100.0% |"
        assert row["amount"][-1] == " |"
        assert float(row["city"][3]) < 1e-9

    def test_the_report_is_plain_json(self, known, package):
        import json

        found = json.loads(json.dumps(report_of(known, package, recorded(orders(3, 2, shift=1.0))).to_json()))

        assert found["drifted"] is True
        assert found["columns"][0] in {"amount", SCORE, PREDICTION}
        assert len(found["windows"]) == 2


def labelled(frame: pd.DataFrame, package: ModelPackage) -> Labelled:
    found = labelled_rows(recorded(frame).assign(label=frame["late"]), package)
    assert found is not None
    return found


class TestLabels:
    def test_the_real_quality_stands_beside_what_was_expected_of_the_same_rows(self, known, package):
        frame = orders(3, 7, first="2026-03-01")
        report = run(
            known, package, recorded(frame), positive="yes", budget=Budget(), at=NOW, source="rows",
            labelled=labelled(frame, package),
        )  # fmt: skip
        every, *days = report.tracked

        assert (every.day, every.n_rows) == (None, 1050)
        assert [day.day for day in days] == [date(2026, 3, day) for day in range(1, 8)]
        of_all = every.qualities[Quality.ROC_AUC]
        assert abs(of_all.error) < 0.03
        assert of_all.held
        assert sum(day.qualities[Quality.ROC_AUC].held for day in days) >= 6
        assert "Expected and real quality by day" in render_drift(report)
        assert report.to_json()["with_labels"][1]["day"] == "2026-03-01"

    def test_a_world_that_changed_is_seen_when_labels_come_and_not_before(self, known, package):
        frame = orders(3, 7, first="2026-03-01").assign(late=lambda f: np.where(f["late"] == "yes", "no", "yes"))
        report = run(
            known, package, recorded(frame), positive="yes", budget=Budget(), at=NOW, source="rows",
            labelled=labelled(frame, package),
        )  # fmt: skip
        found = report.tracked[0].qualities[Quality.ROC_AUC]

        assert set(report.columns) <= {REAL_ERROR, REAL_LOSS, TRUE_LABEL}
        assert REAL_ERROR in report.columns
        assert report.real.fell
        assert not report.is_fine
        assert report.said.startswith("of 1,050 rows whose labels came")
        assert report.real.said in render_drift(report)
        assert found.estimate.value > 0.75
        assert found.real < 0.25
        assert found.held is False

    def test_few_labels_and_rows_without_one_say_nothing(self, known, package):
        frame = orders(3, 1)
        some = recorded(frame).assign(label=np.where(np.arange(150) < 29, frame["late"], None))
        few, every = (
            tell(one, package, positive="yes", source="rows")
            for one in (labelled_rows(some, package), labelled(frame, package))
        )

        assert track(few, known.calibration, positive="yes") == ()
        assert track(every, None, positive="yes") == ()
        assert labelled_rows(recorded(frame), package) is None

    def test_labels_of_another_mix_are_a_column_of_their_own(self, known, package):
        frame = orders(3, 7, first="2026-03-01")
        report = run(
            known, package, recorded(frame), positive="yes", budget=Budget(), at=NOW, source="rows",
            labelled=labelled(frame.assign(late="yes"), package),
        )  # fmt: skip

        assert TRUE_LABEL in report.columns
        assert {PREDICTION, SCORE, "amount"}.isdisjoint(report.columns)
        assert TRUE_LABEL in report.altogether

    def test_labels_count_on_the_day_on_which_they_came(self, known, package):
        frame = orders(3, 2, first="2026-03-01")
        late = replace(labelled(frame, package), came=np.full(len(frame), "2026-03-02", dtype="datetime64[D]"))
        first, second = run(
            known, package, recorded(frame), positive="yes", budget=Budget(), at=NOW, source="rows", labelled=late
        ).windows

        assert TRUE_LABEL not in first.found
        assert second.found[TRUE_LABEL].distance.n_rows == second.found[REAL_ERROR].distance.n_rows == len(frame)

    def test_whole_numbers_of_a_column_with_gaps_are_the_classes_that_they_were(self):
        assert [class_text(one, ("0", "1")) for one in (1.0, 1, "1", True, 0.5)] == ["1", "1", "1", "true", "0.5"]
        assert class_text(1.0, ("1.0", "2.0")) == "1.0"

    def test_errors_are_wrong_labels_or_how_far_numbers_are_away(self):
        labels, numbers = np.array(["a", "b"], dtype=object), np.array([1.0, 2.0, 3.0])

        assert errors_of({PREDICTION: labels}, np.array(["a", "c"], dtype=object)).tolist() == [0, 1]
        assert errors_of({PREDICTION: numbers}, np.array([3.0, 1.5, np.nan]))[:2].tolist() == [2, 0.5]

    def test_probabilities_that_are_too_sure_alarm_by_their_log_loss_where_no_answer_is_wrong_more_often(
        self, known, package
    ):
        frame = orders(3, 7, first="2026-03-01")
        said = read_rows(recorded(frame), package, "yes", source="rows")
        sure = recorded(frame).assign(prediction=said.outputs[PREDICTION], confidence=0.9999)
        report = run(
            known, package, sure, positive="yes", budget=Budget(), at=NOW, source="rows",
            labelled=labelled_rows(sure.assign(label=frame["late"]), package),
        )  # fmt: skip

        assert REAL_LOSS in report.columns
        assert REAL_ERROR not in report.columns
        assert report.altogether[REAL_LOSS].distance.n_rows == len(frame)

    def test_a_log_loss_is_of_what_was_given_to_the_label_and_of_binary_models_only(self):
        outputs = {PREDICTION: np.array(["yes", "no"], dtype=object), SCORE: np.array([0.75, 0.0])}
        labels = np.array(["yes", "no"], dtype=object)

        assert losses_of(outputs, labels, "yes")[REAL_LOSS].tolist() == pytest.approx([-np.log(0.75), 0])
        assert losses_of(outputs, labels[::-1], "yes")[REAL_LOSS][1] == pytest.approx(-np.log(1e-12))
        assert losses_of(outputs, labels, None) == losses_of({}, labels, "yes") == {}

    def test_answers_that_became_better_are_no_drift(self, known, package):
        frame = orders(3, 7, first="2026-03-01")
        said = read_rows(recorded(frame), package, "yes", source="rows").outputs[PREDICTION]
        report = run(
            known, package, recorded(frame), positive="yes", budget=Budget(), at=NOW, source="rows",
            labelled=labelled(frame.assign(late=said), package),
        )  # fmt: skip

        assert REAL_ERROR not in report.columns
        assert report.real.accuracy == 1
        assert not report.real.fell


class TestReference:
    def test_it_learns_from_the_days_of_its_training_rows(self, known):
        assert known.reference.n_windows == 40
        assert known.reference.columns["age"].missing > 0
        assert set(known.reference.outputs) == {PREDICTION, SCORE}
        assert known.calibration is not None

    def test_it_comes_back_as_it_was_from_the_file_that_is_kept_with_the_version(self, known, package):
        kept = read_reference(reference_bytes(known))
        days = recorded(orders(3, 2, first="2026-03-01", shift=1.0))

        assert (kept.reference, kept.calibration) == (known.reference, known.calibration)
        assert report_of(kept, package, days).to_json() == report_of(known, package, days).to_json()

    def test_another_file_is_no_reference(self, tmp_path):
        orders(3, 1).to_parquet(tmp_path / "rows.parquet")

        for data in (b"", b"PAR1", (tmp_path / "rows.parquet").read_bytes()):
            with pytest.raises(ValueError, match="no reference"):
                read_reference(data)

    def test_windows_are_days_blocks_or_nothing(self):
        days = np.repeat(np.arange("2026-01-01", "2026-01-21", dtype="datetime64[D]"), 60)

        assert len(windows_of(days, len(days))) == 20
        assert len(windows_of(None, 3000)) == 30
        assert len(windows_of(None, 3000, most_blocks=10)) == 10
        assert len(windows_of(days[:300], 300)) == 0
        assert windows_of(None, 200) == ()


class TestRecordings:
    def test_rows_are_kept_by_day_and_read_back_in_order(self, tmp_path):
        kept = Recordings(str(tmp_path / "recordings"))
        for day in (2, 1):
            kept.add("orders", "1", date(2026, 3, day), pd.DataFrame({"x": [float(day)]}), name="a")
        kept.add("orders", "1", date(2026, 3, 1), pd.DataFrame({"x": [7.0], "z": ["new"]}), name="b")

        assert kept.days("orders", "1") == (date(2026, 3, 1), date(2026, 3, 2))
        assert kept.read("orders", "1", kept.days("orders", "1"))["x"].tolist() == [1.0, 7.0, 2.0]
        assert kept.read("orders", "1", [date(2026, 3, 2)])["x"].tolist() == [2.0]

    def test_an_unknown_version_and_foreign_files_have_no_days(self, tmp_path):
        kept = Recordings(str(tmp_path))
        (tmp_path / "orders" / "1" / "notes").mkdir(parents=True)
        pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "orders" / "1" / "notes" / "a.parquet")

        assert kept.days("orders", "1") == kept.days("orders", "2") == ()
        assert kept.read("orders", "2", [date(2026, 3, 1)]).empty

    def test_a_file_that_is_not_there_is_an_error(self, tmp_path):
        with pytest.raises(SourceError):
            read_parquet(str(tmp_path / "none.parquet"))
