"""The files of a package are read once, and only exactly those of the manifest."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from release_platform.adapters.package_files import LIMITS, check_manifest, read_checked
from release_platform.domain.identity import FileEntry, Manifest
from tests.fakes.packages import manifest_of

FILES = {"golden.json": b"{}", "model.skops": b"model", "release.json": b"{}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "package"
    made.mkdir()
    for name, data in FILES.items():
        (made / name).write_bytes(data)
    return made


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return manifest_of(folder)


def test_what_was_registered_is_read(folder: Path, manifest: Manifest) -> None:
    assert read_checked(folder, manifest) == FILES


def test_a_file_with_other_bytes_is_refused(folder: Path, manifest: Manifest) -> None:
    (folder / "model.skops").write_bytes(b"madel")
    with pytest.raises(ValueError, match="changed"):
        read_checked(folder, manifest)


@pytest.mark.parametrize("data", [b"", b"mode", b"model "])
def test_a_file_of_another_size_is_refused(folder: Path, manifest: Manifest, data: bytes) -> None:
    (folder / "model.skops").write_bytes(data)
    with pytest.raises(ValueError, match=f"has {len(data)} bytes instead of 5"):
        read_checked(folder, manifest)


@pytest.mark.parametrize("name", ["MLmodel", "model.onnx", "x.py", ".x"])
def test_a_file_that_is_not_in_the_manifest_is_refused(folder: Path, manifest: Manifest, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match="not in the manifest"):
        read_checked(folder, manifest)


def test_a_file_that_no_package_has_is_refused_although_it_is_registered(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="no file that a package may hold"):
        read_checked(folder, manifest_of(folder))


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
def test_a_link_to_the_same_bytes_is_refused(folder: Path, manifest: Manifest, link: object) -> None:
    assert callable(link)
    elsewhere = (folder / "model.skops").rename(folder.parent / "elsewhere")
    link(folder / "model.skops", elsewhere)
    assert (folder / "model.skops").read_bytes() == FILES["model.skops"]
    with pytest.raises(ValueError, match="not a plain file"):
        read_checked(folder, manifest)


def test_a_pipe_is_refused_and_blocks_nothing(folder: Path, manifest: Manifest) -> None:
    (folder / "model.skops").unlink()
    os.mkfifo(folder / "model.skops")
    with pytest.raises(ValueError, match="not a plain file"):
        read_checked(folder, manifest)


@pytest.mark.parametrize("name", LIMITS)
def test_a_file_may_have_as_many_bytes_as_its_limit_and_no_more(name: str) -> None:
    largest = FileEntry(path=name, size_bytes=LIMITS[name], sha256="0" * 64)
    check_manifest(Manifest(files=(largest,)))
    with pytest.raises(ValueError, match="more than"):
        check_manifest(Manifest(files=(replace(largest, size_bytes=LIMITS[name] + 1),)))
