"""What lies in the artefact storage is weighed before it is fetched."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from release_platform.adapters.mlflow_registry import fetch_files
from release_platform.domain.errors import IntegrityError
from tests.fakes.packages import build_linear_classifier, manifest_of

CHANGES: dict[str, Callable[[Path], object]] = {
    "one-byte-more": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "terabyte": lambda path: os.truncate(path, 1 << 40),
    "endless-device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["golden.json", "model.skops"])
def test_a_file_of_another_size_is_not_fetched(tmp_path: Path, name: str, change: str) -> None:
    stored = build_linear_classifier(tmp_path / "stored")
    manifest = manifest_of(stored)
    (tmp_path / "fetched").mkdir()
    CHANGES[change](stored / name)
    with pytest.raises(IntegrityError, match=name):
        fetch_files(str(stored), manifest, tmp_path / "fetched", str(tmp_path), of="cancer version 1")
    assert not list((tmp_path / "fetched").iterdir())
