"""What computes beneath NumPy and scikit-learn, and how a new process is made to compute the same way.

BLAS, OpenMP and NumPy's own loops choose their code by the processor that they find. Another choice adds in another
order, so the last bits of a sum differ. Each can be told what to choose by an environment variable before it is loaded.
"""

import re
from collections.abc import Mapping

_BLAS = "native.blas"
_OPENMP = "native.openmp"
_SIMD = "native.simd"
_DISABLED = "NPY_DISABLE_CPU_FEATURES"
_CHANGES_RESULTS = re.compile(
    r"PYTHON(?!PATH$).*|(OMP|GOMP|KMP|OPENBLAS|GOTO|MKL|BLIS|VECLIB|NUMEXPR|NPY|SKLEARN|SCIPY)_.*|LD_PRELOAD"
)


def native_libraries() -> dict[str, str]:
    """Returns BLAS and OpenMP with versions, core type and threads, and the processor features that NumPy uses."""
    import numpy as np
    import sklearn.ensemble  # noqa: F401 - loads all that training loads
    from threadpoolctl import threadpool_info

    found: dict[str, set[str]] = {}
    for pool in threadpool_info():
        parts = (pool["internal_api"], pool.get("version"), pool.get("architecture"), pool["num_threads"])
        text = " ".join(str(part) for part in parts if part is not None)
        found.setdefault(f"native.{pool['user_api']}", set()).add(text)
    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return {name: ", ".join(sorted(texts)) for name, texts in found.items()} | {_SIMD: " ".join(features)}


def core_type(recorded: Mapping[str, str]) -> str | None:
    """Returns the core type that OpenBLAS chose, e.g. `Haswell`; None for another BLAS."""
    found = re.search(r"openblas \S+ (\S+) \d+", recorded.get(_BLAS, ""))
    return None if found is None else found.group(1)


def pinned(recorded: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment variables of a process that computes as it was recorded.

    Args:
        recorded: `environment` as it was then.
        variables: The variables of this process. Those that change what Python or a numeric library does are left out;
            PYTHONPATH stays, since the platform may be installed through it.
    """
    kept = {name: value for name, value in variables.items() if not _CHANGES_RESULTS.fullmatch(name)}
    seed = recorded.get("hash_seed", "")
    kept["PYTHONHASHSEED"] = seed if seed.isdigit() else "0"
    if (core := core_type(recorded)) is not None:
        kept["OPENBLAS_CORETYPE"] = core
    for kind, variable in ((_BLAS, "OPENBLAS_NUM_THREADS"), (_OPENMP, "OMP_NUM_THREADS")):
        if (threads := re.search(r"(\d+)$", recorded.get(kind, ""))) is not None:
            kept[variable] = threads.group(1)
    if _SIMD in recorded and (more := _newer_features(recorded[_SIMD], variables)):
        kept[_DISABLED] = " ".join(more)
    return kept


def _newer_features(recorded: str, variables: Mapping[str, str]) -> list[str]:
    here = {*native_libraries()[_SIMD].split(), *variables.get(_DISABLED, "").split()}
    return sorted(here - set(recorded.split()))
