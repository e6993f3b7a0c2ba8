"""The loss of every volume of the stack, and its way back from a backup. After `test_stack.py`, which made releases."""

from pathlib import Path

import pytest

from tests.e2e.stack.stack import Stack, until

MODEL = "breast_cancer"


@pytest.fixture(scope="module")
def backed_up(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backup of a stack that serves a version."""
    file = tmp_path_factory.mktemp("backup") / "backup.tar"
    stack.make("up")
    if stack.served(MODEL) is None:  # when this file runs alone
        stack.make("run-pipeline", MODEL=MODEL)
        stack.make("promote", MODEL=MODEL, REASON="first release")
        until(lambda: stack.served(MODEL) is not None, within_s=240)
    stack.make("backup", BACKUP=str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    return file


def ledger(stack: Stack) -> str:
    return stack.sql("release_db", "release", "SELECT epoch, move, version, actor, hash FROM ledger ORDER BY epoch")


def test_nothing_is_restored_over_what_is_there(stack: Stack, backed_up: Path) -> None:
    said = stack.make("restore", BACKUP=str(backed_up), fails=True)
    assert "there is something already in release (" in said
    stack.make("up")


def test_after_the_loss_of_every_volume_everything_is_as_it_was(stack: Stack, backed_up: Path) -> None:
    before, version = ledger(stack), stack.served(MODEL)
    stack.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
    said = stack.make("restore", BACKUP=str(backed_up))
    assert said.count("no fault") == 2, "of `release ledger verify` and `release audit`"
    until(lambda: stack.served(MODEL) == version, within_s=240)
    assert ledger(stack) == before
    assert "at http://proxy:8000" in stack.make("smoke-test", MODEL=MODEL)


def test_releases_go_on_from_there(stack: Stack, backed_up: Path) -> None:
    latest = int(stack.served(MODEL) or 0)
    stack.make("run-pipeline", MODEL=MODEL)
    stack.make("promote", MODEL=MODEL, REASON="after the loss")
    until(lambda: int(stack.served(MODEL) or 0) > latest, within_s=240)


def test_an_older_state_may_take_the_place_of_a_newer_one_when_that_is_said(stack: Stack, backed_up: Path) -> None:
    newer = stack.served(MODEL)
    stack.make("restore", BACKUP=str(backed_up), OVERWRITE="1")
    until(lambda: stack.served(MODEL) not in {None, newer}, within_s=240)
