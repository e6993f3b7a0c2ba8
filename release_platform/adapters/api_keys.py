"""API keys in one JSON file, which serving reads alone: neither database nor registry is needed to know who may call.

The file is replaced as a whole under a lock, so readers never see half of it and several writers lose nothing.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.whole_files import write_whole
from release_platform.domain.api_keys import (
    ApiKey,
    KeyState,
    Scope,
    find_key_id,
    hash_of,
    holds_key,
    in_order,
    key_text,
)
from release_platform.domain.errors import IntegrityError, NotFound, Refused, Unavailable
from release_platform.domain.ports import Clock

LOCK_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    format: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()

    def __post_init__(self) -> None:
        if len({key.key_id for key in self.keys}) != len(self.keys):
            raise ValueError("two keys have the same id")


_FORMAT = TypeAdapter(_Content)


def read_api_keys(path: Path) -> tuple[ApiKey, ...]:
    """Returns the keys in a file, in the order in which they were made.

    Raises:
        NotFound: There is no such file.
        Unavailable: It cannot be read.
        IntegrityError: It is no file of API keys.
    """
    try:
        return _FORMAT.validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", remedy="`release api-key create` makes it") from None
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be read ({error.strerror})", remedy="let the user that runs this process read it"
        ) from None
    except ValidationError as error:  # its own text would show what was found there
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not holds_key(str(part)))
        raise IntegrityError(
            f"{path} is no file of API keys: {where + ': ' if where else ''}{first['msg']}",
            remedy="bring the file back as it was, or move it away and make new keys with `release api-key create`",
        ) from None


class ApiKeyFile:
    """The file as the command line works with it.

    Every method raises `Unavailable` and `IntegrityError` as `read_api_keys` does.

    Args:
        path: The file, made with the first key, readable by its owner only.
        clock: The time.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()

    def all(self) -> tuple[ApiKey, ...]:
        """Returns all keys, those that are no longer good too, in the order in which they were made."""
        try:
            return read_api_keys(self._path)
        except NotFound:
            return ()

    def create(
        self,
        name: str,
        scopes: Iterable[Scope],
        *,
        expires_at: datetime | None = None,
        rate_per_minute: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Returns a new key, and its text, which is kept nowhere.

        Raises:
            Refused: An active key has this name.
            ValueError: Of these values no key can be made.
        """
        now = self._clock.now()
        with self._locked():
            keys = self.all()
            same = next((key for key in keys if key.name == name and key.state(now) is KeyState.ACTIVE), None)
            if same is not None:
                raise Refused(
                    f"the active key {same.key_id} has the name '{name}' already",
                    remedy=f"choose another name, or `release api-key revoke {same.key_id} --reason ...` first",
                )
            taken = {key.key_id for key in keys}
            key_id = next(drawn for drawn in iter(lambda: secrets.token_hex(6), "") if drawn not in taken)
            text = key_text(key_id, secrets.token_urlsafe(32))
            key = ApiKey(
                key_id=key_id,
                name=name,
                scopes=in_order(scopes),
                sha256=hash_of(text),
                created_at=now,
                expires_at=expires_at,
                rate_per_minute=rate_per_minute,
            )
            self._write((*keys, key))
        return key, text

    def adopt(self, name: str, scopes: Iterable[Scope], text: str) -> ApiKey:
        """Returns the key of a text that was drawn elsewhere, good from now on; another one of its name is revoked.

        Raises:
            Refused: The text is no key, or its id is taken by a key of another name or one that is good no more.
        """
        key_id = find_key_id(text)
        if key_id is None:
            raise Refused("that is no API key", remedy="write it like mrp_ID_SECRET, or leave it out for a new one")
        with self._locked():
            keys = self.all()
            now = self._clock.now()
            there = next((key for key in keys if key.key_id == key_id), None)
            if there is not None:
                if (there.name, there.sha256) != (name, hash_of(text)) or there.state(now) is not KeyState.ACTIVE:
                    raise Refused(f"the key {key_id} is another one, or good no more", remedy="draw another key")
                return there
            key = ApiKey(key_id=key_id, name=name, scopes=in_order(scopes), sha256=hash_of(text), created_at=now)
            kept = [
                one.with_revocation(now, f"replaced by {key_id}")
                if one.name == name and one.state(now) is KeyState.ACTIVE
                else one
                for one in keys
            ]
            self._write((*kept, key))
        return key

    def revoke(self, key_id: str, reason: str) -> ApiKey:
        """Returns a key that is good no more; one that was revoked before keeps its moment and reason.

        Raises:
            NotFound: There is no key of that id.
        """
        with self._locked():
            keys = self.all()
            if all(key.key_id != key_id for key in keys):
                raise NotFound(
                    f"there is no API key '{key_id:.16}' in {self._path}",
                    remedy="`release api-key list --all` shows all",
                )
            now = self._clock.now()
            changed = {key.key_id: key.with_revocation(now, reason) if key.key_id == key_id else key for key in keys}
            self._write(tuple(changed.values()))
        return changed[key_id]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock  # a server only reads, and is installed without it

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(self._path.with_name(f".{self._path.name}.lock"), timeout=LOCK_PATIENCE_S, mode=0o600):
                yield
        except OSError as error:  # the time-out of the lock is one too
            raise Unavailable(
                f"{self._path} cannot be written ({error.strerror or error})",
                remedy="look at the rights of its folder, the room on its disk, and whether another command holds it",
            ) from error

    def _write(self, keys: Sequence[ApiKey]) -> None:
        data = _FORMAT.dump_json(_Content(keys=tuple(keys)), indent=1)
        write_whole(self._path, data)
