"""API keys: who may ask a server for what, until when, and how often.

A key is the text `mrp_<id>_<secret>`. Whoever has it shows it; only its hash is kept. The hash has no salt and is not
stretched: both protect secrets that can be guessed, and nobody guesses 256 random bits.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

KEY_PATTERN = r"mrp_([0-9a-f]{12})_[A-Za-z0-9_-]{43}"
LONGEST_NAME = 100
LARGEST_RATE = 1_000_000
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class Scope(StrEnum):
    """What a key is for. None includes another."""

    PREDICT = "predict"
    READ = "read"
    ADMIN = "admin"
    OPERATOR = "operator"


class KeyState(StrEnum):
    """Whether a key is good now. A key that was revoked and has expired too is `revoked`."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is kept: everything but the secret.

    Attributes:
        key_id: 12 hexadecimal digits, which logs may show.
        name: Who or what has it, in one line.
        scopes: What it is for; at least one, each once.
        sha256: SHA-256 of the whole text of the key, in hexadecimal.
        created_at: When it was made.
        expires_at: From when on it is no longer good; None for never.
        revoked_at: From when on it is no longer good, by somebody's decision; None for not.
        revoked_because: Why it was revoked.
        rate_per_minute: Most requests within any 60 s, of one server process; None for the server's own limit.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_because: str = ""
    rate_per_minute: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{12}", self.key_id) or not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError("the id has 12 hexadecimal digits, and the hash 64")
        if not is_name(self.name):
            raise ValueError(f"a name has 1 to {LONGEST_NAME} printable characters, and is not itself a key")
        if not self.scopes or len(set(self.scopes)) != len(self.scopes):
            raise ValueError("a key has at least one scope, and each once")
        moments = (self.created_at, self.expires_at, self.revoked_at)
        if any(moment is not None and moment.tzinfo is None for moment in moments):
            raise ValueError("a moment has an offset from UTC")
        if holds_key(self.revoked_because):
            raise ValueError("a reason does not hold a key")
        if self.rate_per_minute is not None and not 1 <= self.rate_per_minute <= LARGEST_RATE:
            raise ValueError(f"a rate is 1 to {LARGEST_RATE:,} requests per minute")

    def state(self, now: datetime) -> KeyState:
        """Returns whether the key is good; at the very moment of its expiry it is not."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return KeyState.EXPIRED
        return KeyState.ACTIVE

    def with_revocation(self, now: datetime, reason: str) -> "ApiKey":
        """Returns the key as revoked; one that was revoked before stays as it is."""
        return self if self.revoked_at is not None else replace(self, revoked_at=now, revoked_because=reason)


def is_name(text: str) -> bool:
    """Returns whether a key may be named so; the text of a key is no name, for names are shown."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable() and text.strip() == text and not holds_key(text)


def holds_key(text: str) -> bool:
    """Returns whether the text of a key is part of a text."""
    return re.search(KEY_PATTERN, text) is not None


def without_keys(text: str) -> str:
    """Returns a text with the id alone left of each key in it, for what is shown or logged."""
    return re.sub(KEY_PATTERN, r"mrp_\1_...", text)


def key_text(key_id: str, secret: str) -> str:
    """Returns the text of a key.

    Args:
        key_id: 12 hexadecimal digits.
        secret: 256 random bits in URL-safe base64 without padding: 43 characters.
    """
    return f"mrp_{key_id}_{secret}"


def hash_of(text: str) -> str:
    """Returns what is kept of the text of a key."""
    return hashlib.sha256(text.encode()).hexdigest()


def find_key_id(text: str) -> str | None:
    """Returns the id in the text of a key; None when it is no such text."""
    found = re.fullmatch(KEY_PATTERN, text)
    return found[1] if found else None


def in_order(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """Returns scopes each once, in their order."""
    given = set(scopes)
    return tuple(scope for scope in Scope if scope in given)


def expiry_of(text: str, now: datetime) -> datetime:
    """Returns when a key expires, in UTC.

    Args:
        text: How long from now (`30m`, `12h`, `90d`), or when: a date, at whose begin in UTC the key expires, or a
            moment, in UTC when it has no offset.
        now: The present moment.

    Raises:
        ValueError: It is neither, or not in the future, or beyond the year 9999.
    """
    wrong = ValueError(f"{text!r:.80} is no time to come; write 90d, 12h, 30m, a date like 2027-01-01 or an ISO moment")
    try:
        if span := re.fullmatch(r"([0-9]{1,9})([mhd])", text):
            moment = now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None
    if moment <= now:
        raise wrong
    return moment


def rate_of(text: str) -> int:
    """Returns the number of requests per minute of a text like `600/min`: 1 to 1,000,000.

    Raises:
        ValueError: It is not written so.
    """
    found = re.fullmatch(r"([0-9]{1,7})/min", text)
    if found is None or not 1 <= int(found[1]) <= LARGEST_RATE:
        raise ValueError(f"{text!r:.80} is no rate; write it like 600/min, with 1 to {LARGEST_RATE:,} requests")
    return int(found[1])
