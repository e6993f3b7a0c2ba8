"""Why a version that is trained again may become another model: what of its surroundings differs from the recorded."""

from collections.abc import Mapping

from release_platform.pipeline.native import core_type

_EXPECTED_TO_DIFFER = frozenset({"hash_seed", "git_dirty", "git_commit", "platform", "cpus"})
_NAMES = {
    "native.blas": "BLAS",
    "native.openmp": "OpenMP",
    "native.simd": "processor features",
    "lock": "lock file",
    "python": "Python",
    "byte_order": "byte order",
}


def code_differences(
    recorded: Mapping[str, str], found: Mapping[str, str], *, commits: tuple[str, str]
) -> tuple[str, ...]:
    """Returns one sentence for each source file that is not the recorded one; none where nothing was recorded.

    Args:
        recorded: Short digest of each file as it was.
        found: The same now.
        commits: The Git commits that were checked out then and now.
    """
    if not recorded:
        return ()
    said = [f"code: {name} was changed" for name in recorded if name in found and recorded[name] != found[name]]
    said += [f"code: {name} is gone" for name in recorded if name not in found]
    said += [f"code: {name} is new" for name in found if name not in recorded]
    if said and len(set(commits)) == 2:
        said.append("code: the commit was {}, is {}".format(*commits))
    return tuple(sorted(said))


def surrounding_differences(
    recorded: Mapping[str, str], found: Mapping[str, str], *, asked_core: str | None
) -> tuple[str, ...]:
    """Returns one sentence for each library, BLAS core type and so on that differs.

    Args:
        recorded: `environment` as it was when the version was trained.
        found: The same now. What only one of the two names is not compared.
        asked_core: The BLAS core type that this process was told to use; None: none.
    """
    then, now = core_type(recorded), core_type(found)
    said = []
    if then != now:
        reason = ", which this machine or its BLAS does not offer" if then is not None and asked_core == then else ""
        said.append(f"BLAS core type was {then or 'none'}{reason}; it is {now or 'none'}")
    for name in compared(recorded, found):
        if recorded[name] != found[name] and not (name == "native.blas" and said):
            said.append(f"{_called(name)} was {recorded[name]}, is {found[name]}")
    return tuple(said)


def compared(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Returns the names of what is compared."""
    return sorted((recorded.keys() & found.keys()) - _EXPECTED_TO_DIFFER)


def all_compared(recorded: Mapping[str, str], found: Mapping[str, str], n_files: int) -> tuple[str, ...]:
    """Returns all that was held against its record, in words."""
    code = f"{n_files} source files" if n_files else "no source files, since none were recorded"
    return ("every value of the raw data", code, *(_called(name) for name in compared(recorded, found)))


def _called(name: str) -> str:
    if name.startswith("version."):
        return f"library {name.removeprefix('version.')}"
    return _NAMES.get(name, name)
