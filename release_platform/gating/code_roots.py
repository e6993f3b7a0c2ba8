"""Where Python takes the modules of a repository from, so that another commit's can be put in their place.

A module of the repository is found in one of three ways: by an entry of `sys.path` within it (`PYTHONPATH`, an editable
installation by path), by a finder of an editable installation, or as a copy that `pip install .` made. Each leads to a
folder of the repository, `.` or `src` as a rule, which the other commit has too.
"""

import json
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from release_platform.domain.errors import Refused
from release_platform.gating.repository import Repository
from release_platform.pipeline.environment import module_file

_PLATFORM = "release_platform"
_REMEDY = "install it with `pip install -e .`, or name the folder of its modules in PYTHONPATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRoots:
    """Where the modules of a repository are.

    Attributes:
        folders: The folders of the repository that Python looks in, relative to its root, in that order.
        copies: Files that were copied out of the repository when it was installed: of no commit that is compared.
        kept: Folders within the root whose modules are not the repository's: an environment, the installed platform.
        packages: Packages within the platform's own that are taken from the repository, by name.
        outside: Whether the source is of no commit of this repository.
    """

    folders: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    packages: tuple[tuple[str, str], ...] = ()
    outside: bool = False

    def paths_in(self, checkout: Path) -> tuple[str, ...]:
        """Returns where Python looks for modules in a checkout: the folders that it has."""
        return tuple(str(checkout / name) for name in self.folders if (checkout / name).is_dir())

    def packages_in(self, checkout: Path) -> dict[str, str]:
        """Returns the folder, in a checkout, of each package within the platform's own."""
        return {name: str(checkout / folder) for name, folder in self.packages}


def find_code_roots(repository: Repository, reference: str) -> CodeRoots:
    """Returns where the modules of a repository are, for a source that is written in Python.

    Args:
        repository: The repository.
        reference: `module:function`, the source.

    Raises:
        Refused: The source is installed from this repository, and it is not known from which of its files.
    """
    module = reference.partition(":")[0]
    entries = [place for path in sys.path if path and _within(place := Path(path).resolve(), repository.root)]
    kept = _kept(repository, entries)
    own = [found for found in distributions() if _is_of(found, repository.root)]
    copies = tuple(str(path) for found in own for path in _copied(found))
    names = repository.files()
    if module.split(".")[0] == _PLATFORM:
        return _of_platform(repository, module, names, kept)
    source, outside = _source_root(repository, module, names, kept, copies)
    folders = [_relative(place, repository.root) for place in entries if not _within_one(place, kept)]
    folders += [source] if source is not None else []
    folders += [name for found in own for name in _roots_of(found, names, repository.root, kept)]
    return CodeRoots(
        folders=tuple(dict.fromkeys(folders)),
        copies=copies,
        kept=tuple(map(str, kept)),
        outside=outside,
    )


def _source_root(
    repository: Repository, module: str, names: Iterable[str], kept: Iterable[Path], copies: Iterable[str]
) -> tuple[str | None, bool]:
    """Returns the folder of the repository that a module is in, and whether it is of another place altogether."""
    file = module_file(module)
    if file is None:
        raise Refused(f"no Python file is found for {module}", remedy=f"correct `source.python`, or {_REMEDY}")
    if _within(file, repository.root) and not _within_one(file, kept):
        return _relative(_import_root(file, module), repository.root), False
    alike = _named(names, module)
    same = [name for name in alike if (repository.root / name).read_bytes() == file.read_bytes()]
    if len(same) == 1:
        return _relative(_import_root(repository.root / same[0], module), repository.root), False
    if same:
        raise Refused(f"{module} could be any of {', '.join(same)}", remedy=_REMEDY)
    if alike:
        raise Refused(
            f"{module} is installed in {file}, and is not what {', '.join(alike)} holds now",
            remedy="install it again with `pip install .`, or once and for all with `pip install -e .`",
        )
    if str(file) in copies:
        raise Refused(f"{module} is installed from this repository, and none of its files is {file}", remedy=_REMEDY)
    return None, True


def _of_platform(repository: Repository, module: str, names: Iterable[str], kept: tuple[Path, ...]) -> CodeRoots:
    """Returns the roots for a source that came with the platform: its examples are of a commit, it is of none."""
    alike, package = _named(names, module), ".".join(module.split(".")[:2])
    if not alike:
        return CodeRoots(outside=True)
    top = _import_root(repository.root / alike[0], module)
    folder = _relative(top.joinpath(*package.split(".")), repository.root)
    return CodeRoots(kept=tuple(map(str, kept)), packages=((package, folder),))


def _import_root(file: Path, module: str) -> Path:
    """Returns the folder that a module's name begins at."""
    return file.parents[module.count(".") + (1 if file.name == "__init__.py" else 0)]


def _named(names: Iterable[str], module: str) -> list[str]:
    """Returns the files that are called as a module is, wherever its name begins."""
    stem = module.replace(".", "/")
    ends = (f"/{stem}.py", f"/{stem}/__init__.py")
    return [name for name in names if f"/{name}".endswith(ends)]


def _is_of(found: Distribution, root: Path) -> bool:
    """Whether a distribution was installed from a folder or a file of the repository (PEP 610)."""
    url = urlsplit(json.loads(found.read_text("direct_url.json") or "{}").get("url", ""))
    return url.scheme == "file" and _within(Path(unquote(url.path)).resolve(), root)


def _copied(found: Distribution) -> Iterator[Path]:
    for name in found.files or ():
        if name.suffix in {".py", ".so", ".pyd"} and name.parts[0] not in {_PLATFORM, "..", "serving"}:
            yield Path(str(found.locate_file(name))).resolve()


def _roots_of(found: Distribution, names: Iterable[str], root: Path, kept: Iterable[Path]) -> Iterator[str]:
    """Yields the folders of the repository that the packages of one of its distributions are in."""
    for top in (found.read_text("top_level.txt") or "").split():  # an editable one by a finder
        file = module_file(top)
        if file is not None and _within(file, root) and not _within_one(file, kept):
            yield _relative(_import_root(file, top), root)
    tops: set[str] = set()
    for name in found.files or ():
        if name.suffix == ".py" and name.parts[0] not in {*tops, _PLATFORM, ".."}:
            same = [known for known in names if f"/{known}".endswith(f"/{name}")]
            if len(same) == 1:
                tops.add(name.parts[0])
                yield str(PurePosixPath(same[0]).parents[len(name.parts) - 1])


def _kept(repository: Repository, entries: Iterable[Path]) -> tuple[Path, ...]:
    places = {Path(sys.prefix), *(Path(path) for path in sysconfig.get_paths().values()), _platform_folder()}
    inside = {place for path in places if _within(place := path.resolve(), repository.root)} - {repository.root}
    return tuple(sorted({*inside, *repository.ignored(entries)}))


def _platform_folder() -> Path:
    return Path(__file__).resolve().parents[1]


def _within(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)


def _within_one(path: Path, folders: Iterable[Path]) -> bool:
    return any(_within(path, folder) for folder in folders)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
