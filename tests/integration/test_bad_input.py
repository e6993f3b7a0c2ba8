"""Bad input ends a command with one clear error, a remedy and its exit code, and leaves nothing half-registered."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.adapters.release_store import ReleaseStore
from tests.integration.homes import Command, Done, blank_home, project_folder, release_in, warm_release

MODEL = "churn"
ATTRIBUTES: dict[str, Any] = {
    "name": MODEL,
    "task": "binary",
    "owner": "team:crm",
    "source": {"csv": "churn.csv"},
    "contract": {
        "minimum_rows": 50,
        "columns": {
            "age": {"type": "number", "minimum": 0},
            "calls": {"type": "number"},
            "plan": {"type": "category", "allowed": ["basic", "pro"]},
            "churned": {"type": "category", "allowed": ["no", "yes"]},
        },
    },
    "target": {"column": "churned", "positive": "yes"},
    "features": ["age", "calls", "plan"],
    "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
    "gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.5}],
}
REGRESSION: dict[str, Any] = {
    "task": "regression",
    "target": {"column": "calls"},
    "features": ["age", "plan"],
    "estimator": {"type": "sklearn.linear_model.Ridge"},
    "gates": [{"name": "cap", "metric": "rmse", "maximum": 100}],
}


def customers() -> pd.DataFrame:
    """Returns good data: 200 customers."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"age": draw.uniform(18, 80, 200).round(3), "calls": draw.normal(5, 2, 200).round(4)})
    frame["plan"] = draw.choice(["basic", "pro"], 200)
    return frame.assign(churned=np.where(frame["calls"] + draw.normal(0, 1, 200) > 5, "yes", "no"))


def text(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def with_value(row: int, column: str, value: str) -> bytes:
    frame = customers().astype(object)
    frame.loc[row, column] = value
    return text(frame)


@pytest.fixture(scope="module")
def warm() -> Iterator[Command]:
    with warm_release() as run:
        yield run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(blank_home(), tmp_path / "home"))


def write(tmp_path: Path, data: bytes, **attributes: Any) -> None:
    """Writes the project of a team: its data and its `defs.yaml`."""
    described = {"type": "release_platform.component.ModelRelease", "attributes": ATTRIBUTES | attributes}
    folder = project_folder(tmp_path / "models", MODEL, yaml.safe_dump(described))
    (folder / "churn.csv").write_bytes(data)


def assert_one_clear_error(done: Done, exit_code: int, *said: str) -> None:
    assert done.exit_code == exit_code, done.err
    assert done.err.count("error:") == 1, done.err
    assert done.err.count("remedy:") == 1, done.err
    assert "Traceback" not in done.out + done.err
    for words in said:
        assert words in done.err


def assert_nothing_registered(home: Path, model: str = MODEL) -> None:
    store = ReleaseStore(f"sqlite:///{home / 'release.db'}")
    assert store.registrations(model) == ()
    assert store.head(model).epoch == 0
    store.close()
    assert MlflowRegistry(f"sqlite:///{home / 'mlflow.db'}").versions(model) == []


BAD_DATA: dict[str, tuple[Callable[[], bytes], dict[str, Any], tuple[str, ...]]] = {
    "empty file": (lambda: b"", {}, ("churn.csv", "empty")),
    "only a header": (lambda: text(customers().head(0)), {}, ("churn.csv", "no row")),
    "missing column": (lambda: text(customers().drop(columns="plan")), {}, ("churn.csv", "plan")),
    "column of nulls": (lambda: text(customers().assign(age=np.nan)), {}, ("age", "200")),
    "one class only": (lambda: text(customers().assign(churned="no")), {}, ("churned", "no")),
    "constant target": (lambda: text(customers().assign(calls=1.0)), REGRESSION, ("calls", "constant")),
    "wrong dtype": (lambda: with_value(6, "age", "old"), {}, ("row 7", "column 'age'", "old")),
    "copies across the split": (
        lambda: text(pd.concat([customers(), customers()])),
        {},
        ("exact copies of training rows", "allow_duplicates"),
    ),
    "not UTF-8": (lambda: text(customers()).replace(b"basic", b"b\xe4sic"), {}, ("churn.csv", "UTF-8")),
    "ten rows": (lambda: text(customers().head(10)), {}, ("10 rows", "50")),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named_and_nothing_is_registered(warm: Command, case: str, tmp_path: Path, home: Path) -> None:
    data, attributes, said = BAD_DATA[case]
    write(tmp_path, data(), **attributes)
    assert_one_clear_error(warm(home, "run", MODEL), 3, *said)
    assert_nothing_registered(home)


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        ({"type": "sklearn.linear_model.LogisticRegresion"}, "no estimator sklearn.linear_model.LogisticRegresion"),
        ({"type": "sklearn.linear_model.LogisticRegression", "parameters": {"c": 1}}, "has no parameter c; it has"),
        ({"type": "sklearn.linear_model.LogisticRegression", "parameters": {"C": -1}}, "cannot be fitted"),
        ({"type": "sklearn.linear_model.Ridge"}, "is not for a binary model"),
    ],
)
def test_an_estimator_that_cannot_be_is_named(warm: Command, estimator, said: str, tmp_path: Path, home: Path) -> None:
    write(tmp_path, text(customers()), estimator=estimator)
    assert_one_clear_error(warm(home, "run", MODEL), 3, said)
    assert_nothing_registered(home)


def test_a_file_that_is_not_there_is_named(warm: Command, tmp_path: Path, home: Path) -> None:
    write(tmp_path, b"", source={"csv": "chrn.csv"})
    assert_one_clear_error(warm(home, "run", MODEL), 3, "chrn.csv")
    assert_nothing_registered(home)


def test_a_gate_that_cannot_be_passed_is_named_with_its_value(tmp_path: Path, home: Path) -> None:
    write(tmp_path, text(customers()), gates=[{"name": "dream", "metric": "roc_auc", "minimum": 1.0}])
    assert_one_clear_error(release_in(home, "run", MODEL), 4, "dream: roc_auc is 0.", "below the minimum 1")
    assert_nothing_registered(home)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"feetures": ["age"]}, ("feetures", "there is no such key; did you mean 'features'?")),
        ({"gates": [{"name": "auc", "metric": "roc_au", "minimum": 0.5}]}, ("gates.0", "did you mean 'roc_auc'?")),
        ({"gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.5}] * 2}, ("two gates are named 'auc'",)),
        ({"target": {"column": "churn", "positive": "yes"}}, ("target names 'churn'", "did you mean 'churned'?")),
    ],
)
def test_a_wrong_yaml_is_named_by_file_and_field(warm: Command, attributes, said, tmp_path: Path, home: Path) -> None:
    write(tmp_path, text(customers()), **attributes)
    done = warm(home, "run", MODEL)
    assert_one_clear_error(
        done, 2, str(tmp_path / "models" / MODEL / "defs.yaml"), "correct it in the defs.yaml", *said
    )
    assert_nothing_registered(home)


def test_a_wrong_yaml_of_one_model_is_named_when_another_is_asked_for(tmp_path: Path, home: Path) -> None:
    write(tmp_path, text(customers()), feetures=["age"])
    done = release_in(home, "models")
    assert done.exit_code == 0
    assert "left out" in done.err
    assert "feetures" in done.err
    assert "breast_cancer" in done.out


def test_a_folder_of_models_that_is_empty_keeps_nothing_from_working(tmp_path: Path, home: Path) -> None:
    (tmp_path / "models" / "draft").mkdir(parents=True)
    done = release_in(home, "models")
    assert done.exit_code == 0, done.err
    assert "breast_cancer" in done.out


# What is refused


@pytest.fixture(scope="module")
def promoted(warm: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform with version 1 of churn, from good data, in Production and nothing in Staging."""
    parent = tmp_path_factory.mktemp("promoted")
    write(parent, text(customers()))
    home = Path(shutil.copytree(blank_home(), parent / "home"))
    assert warm(home, "run", MODEL).exit_code == 0
    assert warm(home, "promote", MODEL, "--reason", "first").exit_code == 0
    return home


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote", MODEL, "--version", "7", "--reason", "r"), "there is no version 7"),
        (("promote", MODEL, "--version", "1", "--reason", "r"), "version 1 already is in Production"),
        (("promote", MODEL, "--reason", "r"), "there is no version in Staging"),
        (("promote", MODEL, "--reason", " "), "needs an actor and a reason"),
        (("promote", "breast_cancer", "--reason", "r"), "there is no version in Staging"),
        (("promote", "chrn", "--reason", "r"), "there is no model 'chrn'"),
        (("rollback", MODEL, "--reason", "r"), "there is no previous Production version"),
        (("approve", "nope"), "no promotion request nope"),
        (("verify", "breast_cancer"), "nothing is in Production"),
        (("lineage", MODEL, "7"), "there is no version 7"),
        (("run", "churn", "--partitions", "2013-01:2013-02"), "churn has no partitions"),
    ],
)
def test_what_makes_no_sense_is_refused_with_5(warm: Command, promoted: Path, arguments, said: str) -> None:
    assert_one_clear_error(warm(promoted, *arguments), 5, said)
    store = ReleaseStore(f"sqlite:///{promoted / 'release.db'}")
    assert store.head(MODEL).production == "1"
    store.close()


def test_a_promotion_without_a_reason_is_a_wrong_usage(promoted: Path) -> None:
    done = release_in(promoted, "promote", MODEL)
    assert done.exit_code == 2
    assert "--reason" in done.err


# Outside systems


def test_an_mlflow_that_does_not_answer_is_named(promoted: Path) -> None:
    done = release_in(promoted, "run", MODEL, RELEASE_MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert_one_clear_error(done, 6, "MLflow (http://127.0.0.1:1) does not answer", "RELEASE_MLFLOW_TRACKING_URI")


def test_a_server_that_does_not_answer_is_named(promoted: Path) -> None:
    done = release_in(promoted, "verify", MODEL, "--url", "http://127.0.0.1:1")
    assert_one_clear_error(done, 6, "http://127.0.0.1:1")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 5 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("what", ["snapshots", "artifacts"])
def test_a_full_disk_is_named_and_nothing_is_registered(what, warm, tmp_path: Path, home: Path, small_disk) -> None:
    write(tmp_path, text(customers()))
    (small_disk / "rest").write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    (home / what).symlink_to(small_disk)
    done = warm(home, "run", MODEL)
    assert_one_clear_error(done, 6, "room")
    assert_nothing_registered(home)
