"""A registered version is trained again: the same model, or another one with its cause."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from release_platform.defs.reproduction import check_key, reproduce_version, said
from release_platform.domain.errors import IntegrityError, NotFound
from release_platform.pipeline.reproduction import Reproduction
from tests.integration.homes import Home, example, open_home

MODEL = example("diabetes")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with open_home(tmp_path_factory.mktemp("home")) as opened:
        assert opened.release(MODEL).success
        yield opened


def test_a_version_is_trained_again_from_what_was_recorded(home: Home) -> None:
    found = reproduce_version(home.services, MODEL, "1")
    assert found.same
    assert found.answers_differ_by == 0.0
    assert found.found == home.registrations(MODEL)[0].model_digest


def test_a_release_does_not_train_twice_by_itself(home: Home) -> None:
    record = home.instance.get_latest_asset_check_evaluation_record(check_key(MODEL))
    assert record is None


def test_a_snapshot_that_was_changed_is_named(home: Home) -> None:
    raw = home.record(MODEL, "raw_data").snapshots["all"]
    honest = Path(raw.uri).read_bytes()
    Path(raw.uri).write_bytes(honest[:-1] + b"x")
    with pytest.raises(IntegrityError, match=Path(raw.uri).name):
        reproduce_version(home.services, MODEL, "1")
    Path(raw.uri).write_bytes(honest)


def test_a_version_that_there_is_not_is_not_found(home: Home) -> None:
    with pytest.raises(NotFound, match="no version 9"):
        reproduce_version(home.services, MODEL, "9")


def test_another_model_names_what_differs() -> None:
    same = Reproduction(recorded="sha256:a", found="sha256:a", differences=(), answers_differ_by=0.0)
    other = replace(same, found="sha256:b", differences=("version.numpy was 1, is 2",), answers_differ_by=0.5)
    assert said(same) == "the same fitted model: sha256:a"
    assert "version.numpy was 1, is 2" in said(other)
    assert "nothing that was recorded" in said(replace(other, differences=()))
