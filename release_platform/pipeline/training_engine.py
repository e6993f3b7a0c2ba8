"""Where a fit computes: in this process, or on the workers of a Dask cluster through joblib's back end.

What scikit-learn does in parallel goes to the workers: the folds of each candidate of a search, and the parts of
an ensemble that are fitted each for themselves (forests, extra trees, bagging, stacking, voting). Each part has its own
seed, so it does not matter where it is fitted. The workers must compute as this process does; they are asked first.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from platform import python_version

from release_platform.adapters.dask_cluster import connected
from release_platform.domain.errors import Refused, Unavailable
from release_platform.domain.training_spec import TrainingEngine, TrainingSpec
from release_platform.pipeline.native import native_libraries

_PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "joblib", "model-release-platform")
_BLAS = "native.blas"


@contextmanager
def training_engine(described: TrainingSpec) -> Iterator[None]:
    """Makes scikit-learn's parallel parts, while it is open, run where the spec says.

    Raises:
        Unavailable: The cluster does not answer, has no worker, or lost one for good.
        Refused: A worker would compute otherwise than this process.
    """
    if described.engine is TrainingEngine.LOCAL:
        yield
        return
    import joblib

    with connected(described.scheduler) as client:
        require_alike(surroundings(), client.run(surroundings))
        try:
            with client.as_current(), joblib.parallel_config(backend="dask", client=client):
                yield
        except Exception as error:
            if not type(error).__module__.startswith("distributed"):
                raise
            raise Unavailable(
                f"the Dask cluster {described.scheduler} failed: {type(error).__name__}: {error}",
                remedy="read the logs of its workers; a worker that is killed has mostly too little memory",
            ) from error


def surroundings() -> dict[str, str]:
    """Returns what of a process decides the last bits of a fit: versions, BLAS with core type, processor features."""
    native = native_libraries()
    pools = [text.rpartition(" ") for text in native[_BLAS].split(", ")]  # NumPy and SciPy bring one each
    blas, threads = ", ".join(name for name, _, _ in pools), max(int(n) for _, _, n in pools)
    found = {name: version(name) for name in _PACKAGES} | {"python": python_version()}
    return found | {"BLAS": blas, "BLAS threads": str(threads), "SIMD": native["native.simd"]}


def require_alike(here: Mapping[str, str], workers: Mapping[str, Mapping[str, str]]) -> None:
    """Refuses workers that would not give the same model to the last bit.

    Args:
        here: The `surroundings` of this process, which fits with one thread of BLAS, however many it has.
        workers: Those of each worker, by its address.

    Raises:
        Refused: One has another library, or more threads of BLAS; names it.
    """
    wanted = {**here, "BLAS threads": "1"}
    for address, found in sorted(workers.items()):
        for name, value in wanted.items():
            if found.get(name) != value:
                raise Refused(
                    f"the Dask worker {address} has {name} {found.get(name)}, and here it is {value}: it would not fit "
                    "the same model",
                    remedy="start the workers from the same image, with OPENBLAS_NUM_THREADS=1 and OPENBLAS_CORETYPE "
                    "as here",
                )
