"""The file of API keys: written whole, by several processes at once, for its owner's eyes; a bad one is refused."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from release_platform.adapters.api_keys import ApiKeyFile, read_api_keys
from release_platform.domain.api_keys import KeyState, Scope, hash_of, key_text
from release_platform.domain.errors import IntegrityError, NotFound, Refused, Unavailable
from tests.fakes.clock import FakeClock

SECRET = "s" * 43
WHOLE_KEY = f"mrp_0123456789ab_{SECRET}"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 11, 1, tzinfo=UTC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "api-keys.json"


@pytest.fixture
def file(path: Path, clock: FakeClock) -> ApiKeyFile:
    return ApiKeyFile(path, clock)


def test_what_was_made_is_read_again_and_the_key_itself_is_nowhere(file: ApiKeyFile, path: Path) -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    key, text = file.create("dash", [Scope.READ, Scope.PREDICT], expires_at=until, rate_per_minute=600)
    assert read_api_keys(path) == file.all() == (key,)
    assert (key.scopes, key.expires_at, key.rate_per_minute) == ((Scope.PREDICT, Scope.READ), until, 600)
    assert key.sha256 == hash_of(text)
    secret = text.removeprefix(f"mrp_{key.key_id}_")
    assert len(secret) == 43
    assert all(secret not in found.read_text() for found in path.parent.iterdir())


def test_every_key_is_another(file: ApiKeyFile) -> None:
    made = [file.create(f"key {n}", [Scope.READ]) for n in range(20)]
    assert len({key.key_id for key, _ in made}) == len({text[-43:] for _, text in made}) == 20


def test_only_its_owner_reads_the_file_and_nothing_else_is_left(file: ApiKeyFile, path: Path) -> None:
    file.create("a", [Scope.READ])
    path.chmod(0o644)
    file.create("b", [Scope.READ])
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {found.name for found in path.parent.iterdir()} == {path.name, f".{path.name}.lock"}


def test_there_are_no_keys_before_the_first(file: ApiKeyFile, path: Path) -> None:
    assert file.all() == ()
    assert not path.exists()
    with pytest.raises(NotFound, match="there is no file"):
        read_api_keys(path)


def test_an_active_key_keeps_its_name_to_itself(file: ApiKeyFile, clock: FakeClock) -> None:
    first, _ = file.create("dash", [Scope.READ], expires_at=clock.now() + timedelta(days=1))
    with pytest.raises(Refused, match=first.key_id):
        file.create("dash", [Scope.READ])
    clock.pass_s(86400)
    second, _ = file.create("dash", [Scope.READ])
    file.revoke(second.key_id, "lost")
    third, _ = file.create("dash", [Scope.READ])
    states = [(key.key_id, key.state(clock.now())) for key in file.all()]
    assert states == [
        (first.key_id, KeyState.EXPIRED),
        (second.key_id, KeyState.REVOKED),
        (third.key_id, KeyState.ACTIVE),
    ]


def test_revoking_changes_one_key_and_keeps_the_first_reason(file: ApiKeyFile, clock: FakeClock) -> None:
    (first, _), (other, _) = file.create("a", [Scope.READ]), file.create("b", [Scope.READ])
    revoked = file.revoke(first.key_id, "lost")
    clock.pass_s(60)
    assert file.revoke(first.key_id, "again") == revoked
    assert file.all() == (revoked, other)
    assert (revoked.revoked_at, revoked.revoked_because) == (first.created_at, "lost")


def test_an_unknown_id_is_not_revoked(file: ApiKeyFile) -> None:
    key, _ = file.create("a", [Scope.READ])
    with pytest.raises(NotFound, match="0123456789ab"):
        file.revoke("0123456789ab", "lost")
    assert file.all() == (key,)


def create_some(path: Path, worker: int) -> list[str]:
    return [ApiKeyFile(path).create(f"{worker}-{n}", [Scope.READ])[0].key_id for n in range(6)]


def test_of_many_processes_none_loses_a_key(path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = [key_id for some in pool.map(create_some, [path] * 4, range(4)) for key_id in some]
    assert len(made) == 24
    assert {key.key_id for key in read_api_keys(path)} == set(made)


def entry(**given: object) -> dict[str, object]:
    values = {"key_id": "0123456789ab", "name": "a", "scopes": ["read"], "sha256": "0" * 64}
    return {**values, "created_at": "2026-11-01T00:00:00Z", **given}


def content(*keys: object, **given: object) -> bytes:
    return json.dumps({"format": 1, "keys": keys, **given}).encode()


def test_the_least_that_a_key_needs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(entry()))
    assert [key.key_id for key in read_api_keys(path)] == ["0123456789ab"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        content(format=2),
        content(more=1),
        content(entry(more=1)),
        content(entry(scopes=["everything"])),
        content(entry(scopes=[])),
        content(entry(created_at="2026-11-01T00:00:00")),
        content(entry(key_id="short")),
        content(entry(sha256=WHOLE_KEY)),
        content(entry(name=WHOLE_KEY)),
        content(entry(rate_per_minute=0)),
        content({**entry(), WHOLE_KEY: 1}),
        content(entry(), entry(name="b")),
        content(WHOLE_KEY),
    ],
    ids=lambda data: data[:60].decode("ascii", "replace").replace(SECRET, "SECRET"),
)
def test_what_is_no_file_of_keys_is_refused_by_name_and_shows_no_secret(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="is no file of API keys") as caught:
        read_api_keys(path)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_nothing_is_written_over_a_file_that_is_no_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"{}x")
    with pytest.raises(IntegrityError):
        ApiKeyFile(path).create("a", [Scope.READ])
    assert path.read_bytes() == b"{}x"


def test_what_cannot_be_read_or_written_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        read_api_keys(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot be written"):
        ApiKeyFile(tmp_path / "file" / "keys.json").create("a", [Scope.READ])


def test_a_key_that_was_drawn_elsewhere_is_taken_once_and_replaces_the_one_of_its_name(file: ApiKeyFile) -> None:
    scopes = (Scope.READ, Scope.OPERATOR)
    first, second = (key_text(key_id, SECRET) for key_id in ("0" * 12, "1" * 12))
    taken = file.adopt("ada", scopes, first)
    assert (taken.key_id, taken.scopes, taken.sha256) == ("0" * 12, scopes, hash_of(first))
    assert file.adopt("ada", scopes, first) == taken
    assert file.all() == (taken,)
    file.adopt("ada", scopes, second)
    assert [(key.key_id, key.revoked_because) for key in file.all()] == [
        ("0" * 12, f"replaced by {'1' * 12}"),
        ("1" * 12, ""),
    ]
    for name, text in (("ada", first), ("eve", second), ("ada", "no key")):
        with pytest.raises(Refused):
            file.adopt(name, scopes, text)
