"""Drift on a real platform: recorded requests, the asset that goes on from day to day, its check, and the command."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from release_platform.defs.monitoring import STAGE, STATE
from release_platform.defs.naming import asset_key
from release_platform.examples.breast_cancer.source import load
from tests.integration.homes import Home, example, open_home, release_in, why

MODEL = example("breast_cancer")
NAME = MODEL.spec.name
TODAY = datetime.now(UTC).date()
GROWN = "mean_radius"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with breast_cancer in Production, and five days of recorded requests like its training data."""
    with open_home(tmp_path_factory.mktemp("drift") / "home") as opened:
        done = opened.release(MODEL)
        assert done.success, why(done)
        releases = opened.services.releases
        releases.request(NAME, version="1", actor="ada", reason="better", request_id="q1")
        releases.promote("q1", MODEL.spec.policy)
        for ago in range(6, 1, -1):
            add(opened, days_ago=ago)
        yield opened


def rows(seed: int, *, times: float = 1.0) -> pd.DataFrame:
    inputs = [column.name for column in MODEL.spec.plan.inputs]
    found = load()[inputs].sample(200, replace=True, random_state=seed).reset_index(drop=True)
    return found.assign(**{GROWN: found[GROWN] * times})


def add(home: Home, *, days_ago: int, times: float = 1.0) -> None:
    day = TODAY - timedelta(days=days_ago)
    at = pd.Timestamp(datetime.combine(day, time(12), tzinfo=UTC))
    table = rows(days_ago, times=times).assign(at=at, prediction_id=[f"{day}-{i}" for i in range(200)])
    home.services.recordings.add(NAME, "1", day, table, name="part-0")


def materialize(home: Home) -> tuple[dg.AssetMaterialization, dg.AssetCheckEvaluation]:
    done = home.materialize(MODEL, STAGE)
    assert done.success, why(done)
    (check,) = done.get_asset_check_evaluations()
    return home.materialization(MODEL, STAGE), check


def test_the_report_goes_on_from_day_to_day_and_its_check_names_what_drifted(home: Home) -> None:
    made, check = materialize(home)
    assert check.passed, check.description
    assert made.metadata["dagster/row_count"].value == 1000
    assert made.metadata["days"].value == 5
    assert made.metadata[f"psi/{GROWN}"].value < 0.2
    assert Path(str(made.metadata["report"].value)).read_text().startswith("<!DOCTYPE html>")

    nothing, check = materialize(home)  # no day was finished meanwhile
    assert not check.passed
    assert "no rows" in str(check.description)
    assert nothing.metadata[STATE].value == made.metadata[STATE].value

    add(home, days_ago=1, times=1.6)
    add(home, days_ago=0, times=1.6)  # today is not finished
    made, check = materialize(home)
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert GROWN in str(made.metadata["columns_that_drifted"].value)
    assert made.metadata["days"].value == 1
    state = made.metadata[STATE].value
    assert isinstance(state, dict)
    assert state["last_day"] == (TODAY - timedelta(days=1)).isoformat()
    assert state["detector"]["n_windows"] == 6


def test_no_release_materializes_it(home: Home) -> None:
    job = home.definitions(MODEL).resolve_job_def(f"release_{NAME}")

    assert asset_key(NAME, STAGE) not in job.asset_layer.executable_asset_keys


def test_the_command_compares_a_file_and_writes_a_page(home: Home, tmp_path: Path) -> None:
    file, page = tmp_path / "july.parquet", tmp_path / "july.html"
    rows(1, times=1.6).to_parquet(file)
    done = release_in(home.folder, "drift", NAME, "--data", str(file), "--html", str(page), "--json")

    assert done.exit_code == 0, done.err
    assert done.json["drifted"] is True
    assert GROWN in done.json["columns"]
    assert done.json["rows"] == 200
    assert page.read_text().count("data:image/png;base64,") > 5


def test_the_command_compares_recorded_requests(home: Home) -> None:
    done = release_in(home.folder, "drift", NAME, "--since", "4d")

    assert done.exit_code == 0, done.err
    assert "rows of" in done.out
    assert "expected roc_auc, without labels" in done.out


def test_without_rows_it_says_what_to_do(home: Home, tmp_path: Path) -> None:
    empty = tmp_path / "empty.parquet"
    rows(1).head(0).to_parquet(empty)
    done = release_in(home.folder, "drift", NAME, "--data", str(empty))

    assert done.exit_code == 5
    assert "there are no rows" in done.err
    assert release_in(home.folder, "drift", NAME, "--since", "soon").exit_code == 2
    assert json.loads(release_in(home.folder, "drift", NAME, "--json", "--since", "4d").out)["model"] == NAME
