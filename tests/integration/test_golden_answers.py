"""The registry's model answers its golden rows in a process of its own, which nothing of this one reaches."""

import json

import numpy as np
import pytest

from release_platform.adapters.golden_answers import run_golden
from release_platform.adapters.model_package import load_package
from release_platform.domain.errors import IntegrityError
from tests.fakes.packages import (
    build_linear_classifier,
    build_onnx_classifier,
    build_typed_classifier,
    manifest_of,
)
from tests.integration.homes import ROOT

WITNESS = """
import atexit, json, os, sys
atexit.register(lambda: json.dump([dict(os.environ), sorted(sys.modules)], open({file!r}, "w")))
"""


@pytest.fixture
def witness(tmp_path, monkeypatch):
    """Returns the variables and the loaded modules of the last process that ended."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(WITNESS.format(file=str(tmp_path / "witness.json")))
    monkeypatch.setenv("PYTHONPATH", f"{place}:{ROOT}")
    return lambda: json.loads((tmp_path / "witness.json").read_text())


def test_the_answers_are_those_of_the_model_to_the_last_bit(tmp_path):
    folder = build_typed_classifier(tmp_path / "1")
    found = run_golden(folder, manifest_of(folder))
    package = load_package(folder, manifest_of(folder))
    wanted = package.predict(package.golden_inputs)
    assert found.answers.probabilities.tobytes() == wanted.probabilities.tobytes()
    assert found.answers.values.tolist() == wanted.values.tolist()
    assert (found.engine, found.classes, found.n_rows) == ("skops", ("low", "mid", "high"), 5)
    assert (found.inputs, found.columns) == (package.plan.inputs, package.golden["inputs"])


def test_nothing_that_this_process_is_set_to_reaches_it(tmp_path, monkeypatch, witness):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong NumPy')")
    monkeypatch.chdir(tmp_path)
    secrets = {"RELEASE_SERVING_API_KEY": "s", "RELEASE_SIGNING_KEY": "s", "AWS_SECRET_ACCESS_KEY": "s"}
    numeric = {"OMP_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "AVX2"}
    for name, value in {**secrets, **numeric, "LD_PRELOAD": ""}.items():
        monkeypatch.setenv(name, value)
    folder = build_linear_classifier(tmp_path / "1")
    assert run_golden(folder, manifest_of(folder)).n_rows == 5
    variables, _ = witness()
    assert variables["OMP_NUM_THREADS"] == "1"
    assert not {*secrets, "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "LD_PRELOAD"} & variables.keys()


def test_an_onnx_model_answers_without_what_is_slow_to_import(tmp_path, witness):
    folder = build_onnx_classifier(tmp_path / "1")
    found = run_golden(folder, manifest_of(folder))
    assert found.engine == "onnx"
    assert np.isfinite(found.answers.probabilities).all()
    _, modules = witness()
    assert "onnxruntime" in modules
    assert not {"mlflow", "pandas", "sklearn", "skops", "dagster", "httpx", "pyarrow"} & set(modules)


def test_files_that_are_not_the_registered_ones_are_refused_by_their_name(tmp_path):
    folder = build_linear_classifier(tmp_path / "1")
    manifest = manifest_of(folder)
    golden = (folder / "golden.json").read_text()
    (folder / "golden.json").write_text(golden.replace("[", " [", 1)[: len(golden)])
    with pytest.raises(IntegrityError, match=r"golden\.json was changed") as caught:
        run_golden(folder, manifest)
    assert caught.value.remedy


def test_a_process_that_dies_is_told(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'out of luck')\nos._exit(9)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    folder = build_linear_classifier(tmp_path / "1")
    with pytest.raises(IntegrityError, match="ended with code 9: out of luck"):
        run_golden(folder, manifest_of(folder))
