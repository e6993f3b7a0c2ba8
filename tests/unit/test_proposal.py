"""`release new`: a proposal from a file is a valid, working model that says why it is what it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.errors import DataError, SourceError
from release_platform.domain.features import ColumnType
from release_platform.domain.metrics import Task
from release_platform.domain.spec import ModelSpec
from release_platform.pipeline.features import build_feature_table, read_features
from release_platform.pipeline.ingest import ingest, read_raw
from release_platform.pipeline.proposal import _said, propose
from release_platform.pipeline.training import fit

N_ROWS = 200
SPEC = TypeAdapter(ModelSpec)
Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def written(name: str = "churn.csv", **columns: Any) -> Path:
        noise = np.random.default_rng(0).normal(size=N_ROWS)
        rows = np.arange(N_ROWS)
        frame = pd.DataFrame({"spend": np.abs(noise) * 100, "plan": np.array(["basic", "plus", "pro"])[rows % 3]})
        frame["churned"] = np.where(noise + rows % 3 > 1.5, "yes", "no")
        for column, values in columns.items():
            frame[column] = values
        path = tmp_path / name
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
        return path

    return written


def proposed(path: Path, target: str = "churned", **more: Any) -> tuple[str, ModelSpec]:
    text = propose("churn", path, target, "team:growth", **more)
    content = yaml.safe_load(text)
    assert content["type"] == "release_platform.component.ModelRelease"
    return text, SPEC.validate_python(content["attributes"])


def test_a_proposal_is_a_valid_model_of_the_file(write: Writer) -> None:
    _, spec = proposed(write(), address="churn.csv")
    assert (spec.name, spec.owner, spec.task, spec.source.csv) == ("churn", "team:growth", Task.BINARY, "churn.csv")
    assert (spec.target.column, spec.target.positive) == ("churned", "yes")
    assert spec.contract.columns["churned"].allowed == ("no", "yes")
    assert spec.features == ("spend", "plan")
    assert spec.slices == ("plan",)
    assert {gate.name for gate in spec.gates} == {"floor", "plausible", "no_worse", "calibrated", "size", "latency"}


@pytest.mark.parametrize("name", ["churn.csv", "churn.parquet"])
def test_a_proposed_model_ingests_and_fits(write: Writer, tmp_path: Path, name: str) -> None:
    path = write(name, joined=pd.date_range("2020-01-01", periods=N_ROWS, freq="7h"), active=np.arange(N_ROWS) % 2 == 0)
    _, spec = proposed(path)
    store = SnapshotStore(str(tmp_path / "snapshots"))
    raw = read_raw(store, {"all": ingest(spec, base=Path("/nowhere"), store=store)[None]})
    rows = read_features(build_feature_table(raw, spec))
    assert fit(spec, rows.features, rows.target).classes == ("no", "yes")
    assert list(rows.features) == ["spend", "plan", "joined_month", "joined_weekday", "joined_hour", "active"]


def test_a_path_is_absolute_unless_the_caller_names_it(write: Writer) -> None:
    path = write()
    assert proposed(path)[1].source.csv == str(path)


@pytest.mark.parametrize(
    ("values", "task", "positive"),
    [
        (np.arange(N_ROWS) % 2, Task.BINARY, 1),
        (np.arange(N_ROWS) % 4 == 0, Task.BINARY, True),
        (np.array(["stays", "goes", "stays"])[np.arange(N_ROWS) % 3], Task.BINARY, "goes"),
        (np.array(["a", "b", "c"])[np.arange(N_ROWS) % 3], Task.MULTICLASS, None),
        (np.arange(N_ROWS) % 10, Task.MULTICLASS, None),
        (np.arange(N_ROWS) % 77, Task.REGRESSION, None),
        (np.arange(N_ROWS) / 7, Task.REGRESSION, None),
    ],
)
def test_the_task_follows_from_the_target(write: Writer, values: Any, task: Task, positive: Any) -> None:
    text, spec = proposed(write(churned=values))
    assert (spec.task, spec.target.positive) == (task, positive)
    assert f"task: {task}  # the target " in text


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ("same", "it is constant"),
        (None, "it has no value in any row"),
        ([f"c{i}" for i in range(N_ROWS)], "looks like an identifier"),
        (range(1, N_ROWS + 1), "looks like an identifier"),
        (
            [f"The customer called {i % 9} times and was not happy with what he was told" for i in range(N_ROWS)],
            "free text",
        ),
    ],
)
def test_a_column_that_says_nothing_is_left_out_with_the_reason(write: Writer, values: Any, why: str) -> None:
    text, spec = proposed(write(extra=values))
    assert "extra" not in spec.contract.columns
    (comment,) = [line for line in text.splitlines() if line.strip().startswith("# extra: left out")]
    assert why in comment


def test_a_column_that_repeats_the_target_is_left_out(write: Writer) -> None:
    path = write()
    frame = pd.read_csv(path)
    text, spec = proposed(write(status=frame["churned"].map({"yes": "closed", "no": "open"})))
    assert "status" not in spec.contract.columns
    assert "status: left out, it repeats the target 'churned'" in text


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["007", "010"] * 100, ColumnType.CATEGORY),
        (["1", "2"] * 100, ColumnType.INTEGER),
        ([1.0, None] + [2.0] * 198, ColumnType.INTEGER),
        (["1.5", "-2"] * 100, ColumnType.NUMBER),
        (["true", "False"] * 100, ColumnType.BOOLEAN),
        (["2020-01-01", "2020-01-02T03:04:05Z"] * 100, ColumnType.TIMESTAMP),
        (["01/02/2020", "03/02/2020"] * 100, ColumnType.CATEGORY),
        (["1", "x"] * 100, ColumnType.CATEGORY),
    ],
)
def test_a_column_gets_the_narrowest_type_that_fits(write: Writer, values: Any, kind: ColumnType) -> None:
    assert proposed(write(extra=values))[1].contract.columns["extra"].type is kind


def test_numbers_that_are_never_negative_are_bounded_and_missing_values_allowed_for(write: Writer) -> None:
    columns = proposed(write(debt=[-1.5, 2.5] * 100, age=[1.5, 2.5] * 10 + [None] * 180))[1].contract.columns
    assert (columns["spend"].minimum, columns["debt"].minimum) == (0, None)
    assert (columns["spend"].nullable, columns["age"].nullable, columns["age"].maximum_missing) == (False, True, 1.0)


def test_equal_rows_are_allowed_and_counted(write: Writer) -> None:
    text, spec = proposed(write(spend=1.5, extra=[1.5, 2.5] * 100))
    assert spec.split.allow_duplicates
    assert "row(s) equal an earlier one" in text
    assert not proposed(write())[1].split.allow_duplicates


def test_a_floor_is_above_the_trivial_predictor(write: Writer) -> None:
    _, spec = proposed(write(churned=["a"] * 180 + ["b"] * 10 + ["c"] * 10))
    (floor,) = [gate.minimum for gate in spec.gates if gate.name == "floor"]
    assert floor == pytest.approx(0.92)


@pytest.mark.parametrize(
    ("target", "values", "error", "told"),
    [
        ("churnde", "x", SourceError, "did you mean 'churned'"),
        ("churned", "x", DataError, "all rows have the same 'churned'"),
        ("churned", [None] + ["a", "b", "a"] * 66 + ["b"], DataError, r"missing in 1 of 200 row\(s\)"),
        ("churned", [f"c{i // 2}" for i in range(N_ROWS)], DataError, "has 100 classes in 200 rows"),
        ("churned", ["2020-01-01", "2020-01-02"] * 100, DataError, "is a time"),
    ],
)
def test_a_target_that_cannot_be_predicted_is_refused(
    write: Writer, target: str, values: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        proposed(write(churned=values), target)


def test_too_few_rows_and_no_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,churned\n" + "1.5,a\n2.5,b\n" * 24)
    with pytest.raises(DataError, match=r"48 row\(s\) are too few"):
        proposed(tmp_path / "d.csv")
    (tmp_path / "d.csv").write_text("x,churned\n" + "1.5,a\n1.5,b\n" * 40)
    with pytest.raises(DataError, match="no column is left"):
        proposed(tmp_path / "d.csv")
    with pytest.raises(SourceError, match="no such file"):
        proposed(tmp_path / "none.csv")


def test_strange_names_and_labels_survive_yaml(write: Writer) -> None:
    odd = {
        "yes": [1.5, 2.5, 3.5, 4.5] * 50,
        "a: b, {c} # d": [1.5, 2.5, 3.5, 4.5] * 50,
        'say "hi"\n': [1.5, 2.5, 3.5, 4.5] * 50,
        "7": [2.5, 1.5, 3.5, 4.5] * 50,
    }
    _, spec = proposed(write(**odd, churned=["no", "0: null"] * 100))
    assert set(odd) <= set(spec.contract.columns)
    assert set(spec.contract.columns["churned"].allowed or ()) == {"no", "0: null"}
    assert spec.target.positive in {"no", "0: null"}


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_any_text_is_read_back_from_yaml(text: str) -> None:
    said = _said(text)
    assert yaml.safe_load(f"a: {said}  # comment\nb: {{{said}: [{said}, x]}}") == {"a": text, "b": {text: [text, "x"]}}
