"""A process that trains again computes as it was recorded, and is told by nothing else what to compute."""

import os
import subprocess
import sys

import pytest

from release_platform.defs.clean_process import _death
from release_platform.pipeline.native import core_type, native_libraries, pinned

RECORDED = {
    "native.blas": "openblas 0.3.30 Haswell 8, openblas 0.3.31.188.0 Haswell 8",
    "native.openmp": "openmp 4",
    "native.simd": "",
    "hash_seed": "random",
}


def test_core_type_threads_and_hash_seed_are_those_of_the_record() -> None:
    found = pinned(RECORDED, {})
    assert found.pop("NPY_DISABLE_CPU_FEATURES", "") == " ".join(sorted(native_libraries()["native.simd"].split()))
    assert found == {
        "OPENBLAS_CORETYPE": "Haswell",
        "OPENBLAS_NUM_THREADS": "8",
        "OMP_NUM_THREADS": "4",
        "PYTHONHASHSEED": "0",
    }
    assert pinned({"hash_seed": "7"}, {}) == {"PYTHONHASHSEED": "7"}


@pytest.mark.parametrize(
    "name",
    ["PYTHONSTARTUP", "PYTHONOPTIMIZE", "OMP_NUM_THREADS", "MKL_CBWR", "NPY_DISABLE_CPU_FEATURES", "LD_PRELOAD"],
)
def test_a_variable_that_changes_results_is_left_out(name: str) -> None:
    assert name not in pinned({}, {name: "1"})


@pytest.mark.parametrize("name", ["PYTHONPATH", "PATH", "RELEASE_HOME", "MLFLOW_TRACKING_URI", "AWS_REGION", "PGHOST"])
def test_a_variable_that_says_where_things_are_stays(name: str) -> None:
    assert pinned({}, {name: "1"})[name] == "1"


def test_another_blas_has_no_core_type() -> None:
    assert core_type({"native.blas": "mkl 2024.1 4"}) is None
    assert core_type({}) is None
    assert core_type(RECORDED) == "Haswell"


_TOLD = "from release_platform.pipeline.native import native_libraries as n; print(n()['native.simd'])"


def test_processor_features_that_the_record_does_not_have_are_switched_off() -> None:
    here = native_libraries()["native.simd"].split()
    if not here:
        pytest.skip("NumPy uses no features beyond its baseline here")
    recorded = {"native.simd": " ".join(here[:-1])}
    done = subprocess.run(
        [sys.executable, "-c", _TOLD], env=pinned(recorded, os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == here[:-1]


def test_a_process_that_died_of_an_instruction_names_the_core_type() -> None:
    code = subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 4)"], check=False).returncode
    assert _death(code, "", "SkylakeX").startswith("this machine cannot run the recorded BLAS core type SkylakeX")
    assert _death(1, "Traceback\nMemoryError: no room\n", None).endswith("ended with code 1: MemoryError: no room")
