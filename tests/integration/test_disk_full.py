"""A disk without room: what fails says so and what to do, nothing is left half-written, and with room all goes on."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.errors import Unavailable
from release_platform.domain.ledger import faults
from release_platform.domain.lifecycle import Move
from release_platform.domain.policy import PromotionRequest
from release_platform.pipeline.ingest import store_frame
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until, until_version
from tests.integration.homes import release_in

MODEL = "cancer"
BODY = {"rows": [dict.fromkeys(CANCER_INPUTS, 1.5)]}


@dataclass(frozen=True)
class SmallDisk:
    """A disk of 4 MB: what is to be written, and what takes the room."""

    place: Path

    def fill(self, *, but_bytes: int = 0) -> None:
        """Takes all the room that is left, but for some bytes."""
        with suppress(OSError), (self.place / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        os.truncate(self.place / "ballast", (self.place / "ballast").stat().st_size - but_bytes)

    def make_room(self) -> None:
        (self.place / "ballast").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield SmallDisk(place)
    subprocess.run(["umount", str(place)], check=True)


# The release store


def move(store: ReleaseStore, epoch: int, request_id: str) -> None:
    store.commit_move(
        model=MODEL,
        move=Move.STAGED,
        version=str(epoch + 1),
        expected_epoch=epoch,
        actor="ada",
        reason="better " * 500,
        request_id=request_id,
        evidence="",
        digest="",
    )


def move_on(store: ReleaseStore) -> None:
    """Moves again and again: a file that has grown already takes some more."""
    for epoch in range(1, 100):
        move(store, epoch, f"q{epoch}")


def test_a_move_that_finds_no_room_is_not_made_and_is_made_when_there_is(disk: SmallDisk) -> None:
    with closing(ReleaseStore(f"sqlite:///{disk.place / 'release.db'}")) as store:
        move(store, 0, "first")
        disk.fill()
        with pytest.raises(Unavailable, match="has room") as found:
            move_on(store)
        n_moved = store.head(MODEL).epoch
        assert "nothing was changed" in found.value.remedy
        assert len(store.ledger(MODEL)) == n_moved
        with pytest.raises(Unavailable, match="has room"):
            store.open_request(
                PromotionRequest(
                    request_id="asked",
                    model=MODEL,
                    version="1",
                    actor="ada",
                    reason="better " * 500,
                    requested_at=datetime.now(UTC),
                )
            )
        assert store.find_request("asked") is None
        disk.make_room()
        move(store, n_moved, f"q{n_moved}")
        assert faults(MODEL, store.ledger(MODEL)) == ()
        assert store.head(MODEL).epoch == n_moved + 1


def test_a_store_that_finds_no_room_to_be_made_is_made_when_there_is(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(Unavailable, match="has room"):
        ReleaseStore(f"sqlite:///{disk.place / 'release.db'}")
    disk.make_room()
    with closing(ReleaseStore(f"sqlite:///{disk.place / 'release.db'}")) as store:
        move(store, 0, "first")


# Snapshots, keys and backups


def test_a_snapshot_that_finds_no_room_leaves_nothing(disk: SmallDisk) -> None:
    store = SnapshotStore(str(disk.place / "snapshots"))
    frame = pd.DataFrame({"x": np.random.default_rng(0).random(200_000)})
    disk.fill(but_bytes=500_000)
    with pytest.raises(Unavailable, match="no room left") as found:
        store_frame(frame, store)
    assert "free space" in found.value.remedy
    assert [path for path in disk.place.rglob("*") if path.is_file()] == [disk.place / "ballast"]
    assert store.files() == ()
    disk.make_room()
    pd.testing.assert_frame_equal(store.read(store_frame(frame, store)), frame)


def test_a_key_that_finds_no_room_is_no_key_and_the_present_one_goes_on(disk: SmallDisk) -> None:
    keys = KeyFolder(disk.place / "keys")
    before = keys.signer().public_key
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        keys.rotate()
    assert keys.signer().public_key == before
    keys.trusted().verify(keys.signer().sign({"a": 1}))
    disk.make_room()
    assert keys.rotate().public_key != before


def test_a_backup_that_finds_no_room_leaves_no_file(disk: SmallDisk, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with closing(ReleaseStore(f"sqlite:///{home / 'release.db'}")) as store:
        move(store, 0, "first")
    (home / "artifacts").mkdir()
    (home / "artifacts" / "large").write_bytes(np.random.default_rng(0).bytes(5_000_000))
    done = release_in(home, "backup", str(disk.place / "backup.tar"))
    assert done.exit_code == 6
    assert "room" in done.err
    assert list(disk.place.iterdir()) == []
    (home / "artifacts" / "large").unlink()
    assert release_in(home, "backup", str(disk.place / "backup.tar")).exit_code == 0


# Serving


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    return {(MODEL, str(n)): build_linear_classifier(root / str(n), n_rows=300 + n) for n in (1, 2)}


def test_a_version_that_finds_no_room_waits_and_the_live_one_answers(
    disk: SmallDisk, packages: dict[tuple[str, str], Path]
) -> None:
    registry = FakeRegistry(packages, aliases={(MODEL, "production"): "1"})
    cache = disk.place / "cache"
    with running(settings_for(cache, retry_max_s=0.1), registry) as url, httpx.Client(base_url=url) as client:
        until_version(client, MODEL, "1")
        disk.fill()
        registry.set_alias(MODEL, "production", "2")
        until(lambda: "room" in str(client.get("/status").json()["models"][MODEL]))
        answer = client.post(f"/v1/models/{MODEL}/predict", json=BODY)
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1")
        assert list((cache / "incoming").iterdir()) == []
        assert len(list((cache / "packages").iterdir())) == 1
        disk.make_room()
        until_version(client, MODEL, "2")
    shutil.rmtree(packages[MODEL, "2"])  # nobody has it but the copy on disk
    gone = FakeRegistry({}, aliases={})
    gone.down = True
    with running(settings_for(cache), gone) as url, httpx.Client(base_url=url) as client:
        until_version(client, MODEL, "2")
