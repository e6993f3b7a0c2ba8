"""`release ledger verify` on an exported ledger, with an auditor's own copy of the public key."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from release_platform.adapters.signing import KeyFolder
from release_platform.adapters.trust import bundles_in
from release_platform.cli import app
from release_platform.domain.errors import DataError, IntegrityError
from release_platform.releases import Releases
from tests.fakes.registry import FakeRegistry
from tests.integration.test_releases import MODEL, folders, keys, promote, registry, releases

__all__ = ["folders", "keys", "registry", "releases"]


@pytest.fixture
def exported(releases: Releases, registry: FakeRegistry, tmp_path: Path) -> list[str]:
    promote(releases, "1")
    promote(releases, "2")
    rows = [json.dumps(row.to_json()) for row in releases.store.ledger(MODEL)]
    bundles = bundles_in(registry.shown(MODEL))
    return rows + [json.dumps({"model": MODEL, "certificate": bundle}) for bundle in bundles]


def verify(lines: list[str], keys: KeyFolder, tmp_path: Path) -> str | Exception:
    (tmp_path / "ledger.jsonl").write_text("\n".join(lines))
    (key,) = (keys.folder / "trusted").iterdir()
    done = CliRunner().invoke(app, ["ledger", "verify", "--file", str(tmp_path / "ledger.jsonl"), "--key", str(key)])
    return done.exception if isinstance(done.exception, Exception) else done.output


def test_an_untouched_ledger_verifies(exported: list[str], keys: KeyFolder, tmp_path: Path) -> None:
    said = verify(exported, keys, tmp_path)
    assert isinstance(said, str)
    assert "4 row(s), certified to row 4" in said
    assert "no fault" in said


def test_a_ledger_whose_end_was_cut_off_does_not_verify(exported: list[str], keys: KeyFolder, tmp_path: Path) -> None:
    said = verify([line for line in exported if '"epoch": 4' not in line], keys, tmp_path)
    assert isinstance(said, IntegrityError)
    assert "ledger row 4: is missing; the certificate of version 2 behind production" in said.problem


def test_certificates_by_a_key_that_is_not_trusted_do_not_pass(exported: list[str], tmp_path: Path) -> None:
    other = KeyFolder(tmp_path / "auditor")
    other.rotate()
    said = verify(exported, other, tmp_path)
    assert isinstance(said, IntegrityError)
    assert "not one of its 4 certificate(s) is by a key that is trusted here; name the public key of" in said.problem


def test_a_file_without_a_row_does_not_pass(exported: list[str], keys: KeyFolder, tmp_path: Path) -> None:
    assert exported
    said = verify([], keys, tmp_path)
    assert isinstance(said, DataError)
    assert "holds no row of a ledger" in said.problem


def test_a_key_without_a_file_is_a_wrong_usage(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ledger", "verify", "--key", str(tmp_path / "trusted.pem")])
    assert done.exit_code == 2
    assert "it goes with --file" in done.output
