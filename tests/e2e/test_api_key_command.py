"""`release api-key` as a person and as a script use it, up to the server's decision."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from release_platform.domain.api_keys import Scope
from serving.access import Access
from serving.errors import Unauthenticated

ROOT = Path(__file__).parents[2]
KEY = re.compile(r"mrp_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def api_key(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RELEASE_")}
    env = kept | {"RELEASE_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"} | more
    command = [sys.executable, "-m", "release_platform", "api-key", *words]
    return subprocess.run(command, env=env, cwd=home.parent, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_is_made_shown_once_used_listed_and_revoked(home: Path) -> None:
    made = api_key(home, "create", "dashboard", "--scope", "predict", "--scope", "read", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    found = KEY.fullmatch(key)
    assert found is not None, "standard output is the key and nothing else"
    assert f"key {found[1]} for predict, read, until" in made.stderr
    assert key not in made.stderr

    file = home / "keys" / "api-keys.json"
    caller = Access(file).admit(b"Bearer " + key.encode(), None, Scope.READ)
    assert caller is not None
    assert (caller.key_id, caller.name) == (found[1], "dashboard")

    listed = api_key(home, "list")
    assert re.search(rf"{found[1]} .* dashboard .* predict, read .* active", listed.stdout)

    revoked = api_key(home, "revoke", found[1], "--reason", "the [laptop] was lost")
    assert revoked.returncode == 0, revoked.stderr
    assert revoked.stdout.startswith(f"{found[1]} (dashboard) is revoked since ")
    assert revoked.stdout.endswith(": the [laptop] was lost\n")
    with pytest.raises(Unauthenticated):
        Access(file).admit(None, key.encode(), Scope.READ)
    assert found[1] not in api_key(home, "list").stdout
    assert re.search(rf"{found[1]} .* revoked", api_key(home, "list", "--all").stdout)
    assert key[17:] not in listed.stdout + revoked.stdout + file.read_text()


def test_a_script_reads_json_and_a_found_key_revokes_itself(home: Path) -> None:
    made = api_key(home, "create", "job", "--scope", "admin", "--expires", "2099-01-01", "--rate", "60/min", "--json")
    one = json.loads(made.stdout)
    key = one.pop("key")
    assert KEY.fullmatch(key)
    assert made.stderr == ""
    assert (one["scopes"], one["rate_per_minute"], one["expires_at"]) == (["admin"], 60, "2099-01-01 00:00:00+00:00")
    assert json.loads(api_key(home, "list", "--json").stdout) == [one]

    done = api_key(home, "revoke", key, "--reason", "it was in a log")
    assert done.returncode == 0, done.stderr
    assert key[17:] not in done.stdout + done.stderr
    assert json.loads(api_key(home, "list", "--json").stdout) == []
    (kept,) = json.loads(api_key(home, "list", "--all", "--json").stdout)
    assert (kept["id"], kept["state"], kept["revoked_because"]) == (one["id"], "revoked", "it was in a log")
    assert kept["revoked_at"] is not None


def test_the_file_is_where_the_setting_says(home: Path, tmp_path: Path) -> None:
    made = api_key(home, "create", "a", "--scope", "read", RELEASE_API_KEYS=str(tmp_path / "elsewhere.json"))
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "elsewhere.json").stat().st_mode & 0o777 == 0o600
    assert not home.exists()


SECRET = "x" * 43


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("create", "a"), 2, "Missing option '--scope'"),
        (("create", "a", "--scope", "all"), 2, "'predict', 'read', 'admin', 'operator'"),
        (("create", "a", "--scope", "read", "--expires", "90x"), 2, "write 90d, 12h, 30m, a date like 2027-01-01"),
        (("create", "a", "--scope", "read", "--expires", "2020-01-01"), 2, "is no time to come"),
        (("create", "a", "--scope", "read", "--rate", "10"), 2, "write it like 600/min"),
        (("create", f"mrp_0123456789ab_{SECRET}", "--scope", "read"), 2, "who or what has the key"),
        (("create", "taken", "--scope", "read"), 5, "remedy: choose another name"),
        (("revoke", "0123456789ab", "--reason", "r"), 5, "remedy: `release api-key list --all`"),
        (("revoke", f"mrp_0123456789ab_{SECRET}", "--reason", "r"), 5, "no API key '0123456789ab'"),
        (("revoke", f"mrp_{SECRET}", "--reason", "r"), 5, "there is no API key"),
        (("revoke", "0123456789ab", "--reason", f"mrp_0123456789ab_{SECRET} leaked"), 2, "name its id only"),
        (("revoke", "0123456789ab"), 2, "Missing option '--reason'"),
    ],
    ids=lambda value: " ".join(value).replace(SECRET, "SECRET") if isinstance(value, tuple) else "",
)
def test_a_mistake_is_named_with_what_to_do_and_changes_nothing(
    home: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    api_key(home, "create", "taken", "--scope", "read")
    before = (home / "keys" / "api-keys.json").read_bytes()
    done = api_key(home, *words)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
    assert SECRET not in done.stderr
    assert (home / "keys" / "api-keys.json").read_bytes() == before


def test_a_file_that_is_damaged_is_named(home: Path) -> None:
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "api-keys.json").write_text('{"format": 2, "keys": []}')
    done = api_key(home, "list")
    assert done.returncode == 7
    assert "is no file of API keys: format: " in done.stderr
    assert "remedy: bring the file back" in done.stderr


@pytest.mark.parametrize("command", ["create", "list", "revoke"])
def test_help_has_an_example(home: Path, command: str) -> None:
    done = api_key(home, command, "--help")
    assert done.returncode == 0
    assert f"release api-key {command}" in done.stdout
