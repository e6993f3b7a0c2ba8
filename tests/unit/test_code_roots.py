"""Whose modules a comparison of two commits reads: found in real repositories, however their packages are installed."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from release_platform.domain.errors import NotFound, Refused
from release_platform.gating.code_roots import CodeRoots, find_code_roots
from release_platform.gating.repository import Repository

CODE = "def load():\n    return 1\n"


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def committed(folder: Path, files: Mapping[str, str]) -> Repository:
    write(folder, {".gitignore": "env/\n", **files})
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "base")
    return Repository.of(folder)


def install(site: Path, files: Mapping[str, str], *, of: Path | None) -> None:
    """Writes what `pip install .` leaves behind: copies, and where they came from."""
    info = site / "parcel-1.dist-info"
    url = {} if of is None else {f"{info.name}/direct_url.json": json.dumps({"url": of.as_uri(), "dir_info": {}})}
    record = "".join(f"{name},,\n" for name in files)
    write(site, {**files, **url, f"{info.name}/METADATA": "Name: parcel\nVersion: 1\n", f"{info.name}/RECORD": record})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


class TestWithin:
    def test_a_module_at_the_top_is_the_repositorys(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        repository = committed(place, {"parcel_top.py": CODE})
        monkeypatch.syspath_prepend(str(place))
        found = find_code_roots(repository, "parcel_top:load")
        assert (found.folders, found.outside) == ((".",), False)

    def test_folders_keep_the_order_in_which_python_looks(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        repository = committed(place, {"src/parcel_src/__init__.py": CODE, "shared/other.py": ""})
        monkeypatch.syspath_prepend(str(place / "src"))
        monkeypatch.syspath_prepend(str(place / "shared"))
        assert find_code_roots(repository, "parcel_src:load").folders == ("shared", "src")

    def test_an_environment_in_the_repository_is_none_of_its_code(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository = committed(place, {"parcel_beside.py": CODE})
        write(place, {"env/lib/thing.py": ""})
        monkeypatch.syspath_prepend(str(place / "env" / "lib"))
        monkeypatch.syspath_prepend(str(place))
        found = find_code_roots(repository, "parcel_beside:load")
        assert found.folders == (".",)
        assert str(place / "env" / "lib") in found.kept


class TestCopies:
    def test_an_installed_copy_leads_to_the_file_it_was_made_of(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = {"parcel_a/__init__.py": "", "parcel_a/source.py": CODE}
        repository = committed(place, {f"src/{name}": text for name, text in files.items()})
        install(tmp_path / "site", files, of=place)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        found = find_code_roots(repository, "parcel_a.source:load")
        assert found.folders == ("src",)
        assert str(tmp_path / "site" / "parcel_a" / "source.py") in found.copies

    def test_packages_beside_the_source_are_found_too(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = {"parcel_b/source.py": CODE, "parcel_tools/noise.py": "x = 1\n"}
        repository = committed(
            place, {"src/parcel_b/source.py": CODE, "libs/tools/parcel_tools/noise.py": "x = 1\n", "src/readme": ""}
        )
        install(tmp_path / "site", files, of=place)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        assert find_code_roots(repository, "parcel_b.source:load").folders == ("src", "libs/tools")

    def test_a_copy_that_is_not_of_now_is_refused(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository = committed(place, {"src/parcel_c/source.py": CODE})
        install(tmp_path / "site", {"parcel_c/source.py": CODE + "# older\n"}, of=place)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        with pytest.raises(Refused, match=r"is not what src/parcel_c/source.py holds now") as refused:
            find_code_roots(repository, "parcel_c.source:load")
        assert "pip install -e ." in refused.value.remedy

    def test_a_copy_of_two_files_alike_is_refused(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository = committed(place, {"a/parcel_d/source.py": CODE, "b/parcel_d/source.py": CODE})
        install(tmp_path / "site", {"parcel_d/source.py": CODE}, of=place)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        with pytest.raises(Refused, match=r"could be any of a/parcel_d/source.py, b/parcel_d/source.py"):
            find_code_roots(repository, "parcel_d.source:load")

    def test_a_copy_that_no_file_of_the_repository_is_like_is_refused(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository = committed(place, {"elsewhere.py": CODE})
        install(tmp_path / "site", {"parcel_e/source.py": CODE}, of=place)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        with pytest.raises(Refused, match="none of its files is"):
            find_code_roots(repository, "parcel_e.source:load")

    def test_a_package_of_somebody_else_is_of_no_commit(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository = committed(place, {"elsewhere.py": CODE})
        install(tmp_path / "site", {"parcel_f/source.py": CODE}, of=None)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        assert find_code_roots(repository, "parcel_f.source:load").outside


def test_a_source_that_python_does_not_find_is_refused(place: Path) -> None:
    with pytest.raises(Refused, match=r"no Python file is found for parcel_nowhere.source"):
        find_code_roots(committed(place, {"a": ""}), "parcel_nowhere.source:load")


def test_a_folder_that_the_other_commit_lacks_is_not_looked_in(place: Path) -> None:
    (place / "src").mkdir()
    assert CodeRoots(folders=(".", "src", "libs")).paths_in(place) == (str(place), str(place / "src"))


class TestRepository:
    def test_each_file_that_differs_is_named_and_nothing_else(self, place: Path) -> None:
        repository = committed(place, {"a.py": CODE, "b é.py": CODE, "model/defs.yaml": "x", "other.py": CODE})
        base = repository.commit("HEAD")
        write(place, {"a.py": "", "model/new.py": "", "other.py": ""})
        (place / "b é.py").unlink()
        assert repository.changed(base, ["a.py", "b é.py", "model"]) == (
            "a.py is changed",
            "b é.py is gone",
            "model/new.py is new",
        )

    def test_a_commit_that_is_not_there_is_named(self, place: Path) -> None:
        with pytest.raises(NotFound, match="no commit 'nowhere'"):
            committed(place, {"a": ""}).commit("nowhere")
