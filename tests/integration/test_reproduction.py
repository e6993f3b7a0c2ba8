"""A version is trained again in a clean process: the same model, or another one with its cause, each a real one."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from release_platform.adapters.mlflow_client import mlflow_client
from release_platform.adapters.mlflow_tracking import SNAPSHOTS_TAG
from release_platform.adapters.snapshot_store import to_frame, to_table
from release_platform.adapters.version_tags import DIGEST_TAG, MANIFEST_TAG
from release_platform.defs.clean_process import reproduce_here
from release_platform.defs.reproduction import check_key, reproduce_version
from release_platform.domain.errors import IntegrityError, NotFound
from release_platform.domain.identity import Manifest, digest_of_bytes
from release_platform.pipeline.ingest import store_frame
from release_platform.pipeline.native import core_type
from release_platform.pipeline.reproduction import Reproduction
from tests.integration.homes import ROOT, Home, environment_of, example, open_home, release_in

MODEL = example("diabetes")
NAME = MODEL.spec.name
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="core types of x86 processors")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with open_home(tmp_path_factory.mktemp("home")) as opened:
        assert opened.release(MODEL).success
        yield opened


def here(home: Home) -> Reproduction:
    return reproduce_here(home.services, NAME, "1", MODEL.folder)


def evaluated(home: Home) -> dg.AssetCheckEvaluation:
    record = home.instance.get_latest_asset_check_evaluation_record(check_key(MODEL))
    assert record is not None
    assert record.event is not None
    found = record.event.asset_check_evaluation
    assert found is not None
    return found


def run_id_of(home: Home) -> str:
    return home.registrations(MODEL)[0].mlflow_run_id


@contextmanager
def tag(home: Home, name: str, value: str) -> Iterator[None]:
    client = mlflow_client(home.services.tracking.uri)
    honest = client.get_run(run_id_of(home)).data.tags[name]
    client.set_tag(run_id_of(home), name, value)
    try:
        yield
    finally:
        client.set_tag(run_id_of(home), name, honest)


class TestSame:
    def test_a_release_does_not_train_twice_by_itself(self, home: Home) -> None:
        assert home.instance.get_latest_asset_check_evaluation_record(check_key(MODEL)) is None

    def test_a_version_is_trained_again_in_another_process_whatever_this_one_is_set_to(
        self, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
        (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong NumPy')")
        monkeypatch.chdir(tmp_path)
        found = reproduce_version(home.services, MODEL, "1")
        assert (found.same, found.same_model, found.same_answers) == (True, True, True)
        assert found.found == home.registrations(MODEL)[0].model_digest
        assert (found.n_golden_rows, found.answers_differ_by, found.differences) == (50, 0.0, ())

    def test_the_command_says_both_and_keeps_it_as_an_asset_check(self, home: Home) -> None:
        done = release_in(home.folder, "reproduce", NAME, "1")
        assert done.exit_code == 0, done.err
        assert "the same fitted model sha256:" in done.out
        assert "the same answers to 50 golden rows" in done.out
        kept = evaluated(home)
        assert kept.passed
        assert kept.metadata["version"].value == "1"

    def test_the_check_runs_from_dagster_too(self, home: Home) -> None:
        wanted = dg.AssetSelection.checks(check_key(MODEL))
        location = dg.Definitions.merge(
            home.definitions(MODEL), dg.Definitions(jobs=[dg.define_asset_job("again", wanted)])
        )
        run = location.resolve_job_def("again").execute_in_process(instance=home.instance)
        assert run.success
        assert evaluated(home).passed
        assert evaluated(home).metadata["version"].value == "1"
        assert evaluated(home).metadata["golden_rows"].value == 50

    def test_a_version_that_there_is_not_is_not_found(self, home: Home) -> None:
        with pytest.raises(NotFound, match="no version 9"):
            reproduce_version(home.services, MODEL, "9")


class TestData:
    @pytest.fixture
    def file(self, home: Home) -> Iterator[Path]:
        path = Path(home.record(MODEL, "raw_data").snapshots["all"].uri)
        kept = {p: p.read_bytes() for p in (path, path.with_suffix(".json"))}
        yield path
        for place, content in kept.items():
            place.write_bytes(content)

    def edit(self, path: Path, column: str, row: int, value: Any) -> None:
        frame = to_frame(pq.read_table(path))
        frame.loc[row, column] = value
        pq.write_table(to_table(frame), path)

    def test_an_edited_cell_is_named_by_its_column_and_block(self, home: Home, file: Path) -> None:
        self.edit(file, "bmi", 100, 99.0)
        done = release_in(home.folder, "reproduce", NAME, "1")
        assert done.exit_code == 7
        assert "column 'bmi' differs in 1 block(s) of rows, the first at rows 1 to 442" in done.err
        assert file.name in done.err
        assert not evaluated(home).passed
        assert "column 'bmi' differs" in (evaluated(home).description or "")

    def test_an_edited_cell_is_found_though_the_record_was_edited_with_it(self, home: Home, file: Path) -> None:
        self.edit(file, "bmi", 100, 99.0)
        record = json.loads(file.with_suffix(".json").read_bytes())
        record["sha256"] = digest_of_bytes(file.read_bytes())
        file.with_suffix(".json").write_text(json.dumps(record))
        with pytest.raises(IntegrityError, match="record were changed together: column 'bmi' differs in 1 block"):
            here(home)

    def test_the_same_values_in_other_bytes_are_told(self, home: Home, file: Path) -> None:
        pq.write_table(pq.read_table(file), file, compression="gzip")
        with pytest.raises(IntegrityError, match="its values are the recorded ones, written in other bytes"):
            here(home)

    def test_a_file_that_is_no_parquet_any_more_is_told(self, home: Home, file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        with pytest.raises(IntegrityError, match=r"data: .* does not hold the bytes that were written"):
            here(home)

    @pytest.mark.parametrize("lost", [".parquet", ".json"])
    def test_a_snapshot_that_is_gone_is_told(self, home: Home, file: Path, lost: str) -> None:
        file.with_suffix(lost).unlink()
        with pytest.raises(IntegrityError, match="is gone"):
            here(home)

    def test_another_snapshot_in_its_place_is_not_trained_on(self, home: Home, file: Path) -> None:
        frame = to_frame(pq.read_table(file)).iloc[::-1].reset_index(drop=True)
        other = store_frame(frame, home.services.snapshots)
        swapped = tag(home, SNAPSHOTS_TAG, json.dumps({"all": other.uri}))
        with swapped, pytest.raises(IntegrityError, match=r"fingerprint .* was registered with"):
            here(home)


class TestSpec:
    @pytest.fixture
    def release_json(self, home: Home) -> Iterator[Path]:
        (file,) = (home.folder / "artifacts").rglob("release.json")
        honest = file.read_bytes()
        spec = json.loads(honest)
        spec["spec"]["seed"] = 7
        file.write_text(json.dumps(spec, sort_keys=True))
        yield file
        file.write_bytes(honest)

    def test_an_edited_seed_is_refused(self, home: Home, release_json: Path) -> None:
        with pytest.raises(IntegrityError, match=r"release\.json"):
            here(home)

    def test_an_edited_seed_is_refused_though_the_manifest_was_edited_with_it(
        self, home: Home, release_json: Path
    ) -> None:
        client, data = mlflow_client(home.services.tracking.uri), release_json.read_bytes()
        honest = client.get_model_version(NAME, "1").tags[MANIFEST_TAG]
        entries = json.loads(honest)
        (entry,) = (entry for entry in entries if entry["path"] == "release.json")
        entry |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        forged = Manifest.from_json(entries)
        for name, value in ((MANIFEST_TAG, json.dumps(entries)), (DIGEST_TAG, forged.digest)):
            client.set_model_version_tag(NAME, "1", name, value)
        with pytest.raises(IntegrityError, match="manifest in MLflow is not the one that was registered"):
            here(home)
        original = Manifest.from_json(json.loads(honest)).digest
        for name, value in ((MANIFEST_TAG, honest), (DIGEST_TAG, original)):
            client.set_model_version_tag(NAME, "1", name, value)


def clone(folder: Path) -> Path:
    """Copies what is installed from a checkout, so that its code can be edited."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "release_platform", folder / "release_platform", ignore=ignored)
    for name in ("requirements", "dagster.yaml", "workspace.yaml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def other_sklearn(folder: Path, *, version: str) -> Path:
    """Makes a scikit-learn whose Ridge fits slightly other numbers, under a version; all else is the installed one."""
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    real = Path(spec.origin).parent
    shutil.copytree(real, folder / "sklearn", copy_function=lambda src, dst: Path(dst).symlink_to(src))
    (folder / "scikit_learn.libs").symlink_to(real.parent / "scikit_learn.libs")
    changed = folder / "sklearn" / "linear_model" / "_ridge.py"
    text = changed.read_text()
    changed.unlink()
    changed.write_text(text + _SHRUNK)
    info = folder / f"scikit_learn-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: scikit-learn\nVersion: {version}\n")
    return folder


_SHRUNK = """

_fit = Ridge.fit


def _shrunk(self, *arguments, **more):
    _fit(self, *arguments, **more)
    self.coef_ = self.coef_ * (1 - 1e-9)
    return self


Ridge.fit = _shrunk
"""


class TestCode:
    def test_a_changed_source_file_is_named(self, home: Home, tmp_path: Path) -> None:
        place = clone(tmp_path / "clone")
        file = place / "release_platform" / "pipeline" / "training.py"
        file.write_text(file.read_text().replace("StandardScaler())", "StandardScaler(with_std=False))"))
        own = place / "release_platform" / "examples" / NAME / "source.py"
        own.write_text(own.read_text() + "\n")
        done = release_in(home.folder, "reproduce", NAME, "1", PYTHONPATH=str(place))
        assert done.exit_code == 7
        assert "another fitted model, answers to 50 golden rows differ by up to" in done.err
        assert "code: pipeline/training.py was changed" in done.err
        assert "code: own/source.py was changed" in done.err
        assert "pipeline/features.py" not in done.err

    def test_changed_code_that_makes_the_same_model_is_told_without_alarm(self, home: Home, tmp_path: Path) -> None:
        place = clone(tmp_path / "clone")
        file = place / "release_platform" / "pipeline" / "report.py"
        file.write_text(file.read_text() + "\n")
        done = release_in(home.folder, "reproduce", NAME, "1", PYTHONPATH=str(place))
        assert done.exit_code == 0, done.err
        assert "(without effect: code: pipeline/report.py was changed" in done.out


class TestLibraries:
    def test_a_library_of_another_version_is_named(self, home: Home, tmp_path: Path) -> None:
        path = f"{other_sklearn(tmp_path, version='0.0.1')}:{ROOT}"
        done = release_in(home.folder, "reproduce", NAME, "1", PYTHONPATH=path)
        assert done.exit_code == 7
        assert f"library scikit-learn was {installed('scikit-learn')}, is 0.0.1" in done.err
        assert not evaluated(home).passed

    def test_a_cause_that_was_not_recorded_is_not_made_up(self, home: Home, tmp_path: Path) -> None:
        path = f"{other_sklearn(tmp_path, version=installed('scikit-learn'))}:{ROOT}"
        done = release_in(home.folder, "reproduce", NAME, "1", PYTHONPATH=path)
        assert done.exit_code == 7
        assert "cause not found: equal are every value of the raw data, " in done.err
        for name in ("source files", "BLAS", "OpenMP", "processor features", "library numpy", "lock file"):
            assert name in done.err


@pytest.fixture(scope="module")
def nehalem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("nehalem") / "home"
    done = release_in(folder, "run", NAME, OPENBLAS_CORETYPE="Nehalem")
    assert done.exit_code == 0, done.err
    with open_home(folder) as opened:
        yield opened


@X86
class TestCoreType:
    def test_the_recorded_core_type_is_used_again(self, nehalem: Home) -> None:
        assert core_type(nehalem.services.tracking.environment_of(run_id_of(nehalem))) == "Nehalem"
        found = reproduce_version(nehalem.services, MODEL, "1")
        assert found.same
        assert found.differences == ()

    def test_another_core_type_makes_another_model_and_is_named(self, nehalem: Home, tmp_path: Path) -> None:
        answer = tmp_path / "answer.json"
        command = ["-m", "release_platform.defs.clean_process", NAME, "1", str(MODEL.folder), str(answer)]
        variables = environment_of(nehalem.folder, OPENBLAS_CORETYPE="Haswell", OPENBLAS_NUM_THREADS="2")
        subprocess.run([sys.executable, *command], env=variables, check=True, timeout=120)
        found = Reproduction.from_json(json.loads(answer.read_bytes()))
        assert not found.same_model
        assert found.differences[0] == "BLAS core type was Nehalem; it is Haswell"

    def test_a_core_type_that_this_machine_does_not_have_is_told(self, nehalem: Home) -> None:
        with tag(nehalem, "env.native.blas", "openblas 0.3.30 NeoverseN1 2"):
            found = reproduce_version(nehalem.services, MODEL, "1")
        assert not found.same_model
        assert found.differences[0].startswith(
            "BLAS core type was NeoverseN1, which this machine or its BLAS does not offer; it is "
        )
