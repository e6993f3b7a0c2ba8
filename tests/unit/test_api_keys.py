"""API keys: what may be one, when it is good, and how spans of time and rates are written."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.api_keys import (
    ApiKey,
    KeyState,
    Scope,
    expiry_of,
    find_key_id,
    hash_of,
    in_order,
    is_name,
    key_text,
    rate_of,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LEAST = timedelta(microseconds=1)
SECRET = "-_" + "x" * 41
TEXT = key_text("0123456789ab", SECRET)


def made(**given_: object) -> ApiKey:
    values = {"key_id": "0123456789ab", "name": "dashboard", "scopes": (Scope.READ,), "sha256": hash_of(TEXT)}
    return ApiKey(**{**values, "created_at": NOW, **given_})  # type: ignore[arg-type]


def test_a_key_is_good_until_the_moment_of_its_expiry() -> None:
    key = made(expires_at=NOW)
    assert key.state(NOW - LEAST) is KeyState.ACTIVE
    assert key.state(NOW) is KeyState.EXPIRED
    assert key.state(NOW + LEAST) is KeyState.EXPIRED
    assert made().state(datetime.max.replace(tzinfo=UTC)) is KeyState.ACTIVE


def test_a_key_that_was_revoked_stays_so_with_its_first_reason() -> None:
    once = made(expires_at=NOW).with_revocation(NOW, "lost")
    twice = once.with_revocation(NOW + LEAST, "found")
    assert once.state(NOW) is KeyState.REVOKED
    assert twice == once
    assert (twice.revoked_at, twice.revoked_because) == (NOW, "lost")


@pytest.mark.parametrize(
    "wrong",
    [
        {"key_id": "0123456789a"},
        {"key_id": "0123456789aB"},
        {"key_id": "0123456789ab\n"},
        {"sha256": "0" * 63},
        {"name": ""},
        {"name": "x" * 101},
        {"name": "two\nlines"},
        {"name": " padded"},
        {"name": f"it is {TEXT}"},
        {"scopes": ()},
        {"scopes": (Scope.READ, Scope.READ)},
        {"created_at": NOW.replace(tzinfo=None)},
        {"expires_at": NOW.replace(tzinfo=None)},
        {"revoked_at": NOW.replace(tzinfo=None)},
        {"revoked_because": f"{TEXT} was found in a log"},
        {"rate_per_minute": 0},
        {"rate_per_minute": 1_000_001},
    ],
    ids=str,
)
def test_a_bad_value_cannot_exist_and_a_key_in_it_is_not_repeated(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError) as caught:
        made(**wrong)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("right", [{"name": "x" * 100}, {"rate_per_minute": 1}, {"rate_per_minute": 1_000_000}])
def test_the_values_at_the_limits_exist(right: dict[str, object]) -> None:
    made(**right)


def test_what_is_kept_is_the_hash_of_the_whole_key() -> None:
    assert hash_of(TEXT) == hashlib.sha256(TEXT.encode()).hexdigest()
    assert SECRET not in repr(made())


@given(st.binary(min_size=32, max_size=32))
def test_the_id_is_found_in_every_key(secret: bytes) -> None:
    text = key_text("0123456789ab", base64.urlsafe_b64encode(secret).rstrip(b"=").decode())
    assert find_key_id(text) == "0123456789ab"
    assert not is_name(text)


@pytest.mark.parametrize("text", ["", "0123456789ab", TEXT + "x", TEXT[:-1], " " + TEXT, TEXT.upper(), TEXT + "\n"])
def test_no_id_is_found_in_what_is_not_exactly_a_key(text: str) -> None:
    assert find_key_id(text) is None


def test_scopes_stand_once_and_in_order() -> None:
    assert in_order([Scope.READ, Scope.PREDICT, Scope.READ]) == (Scope.PREDICT, Scope.READ)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1m", NOW + timedelta(minutes=1)),
        ("12h", NOW + timedelta(hours=12)),
        ("90d", NOW + timedelta(days=90)),
        ("2027-01-01", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T02:00", datetime(2027, 1, 1, 2, tzinfo=UTC)),
        ("2027-01-01T02:00+02:00", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2026-11-01T12:00:00.000001", NOW + LEAST),
        ("9999-12-31", datetime(9999, 12, 31, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_a_span_from_now_or_a_moment(text: str, expected: datetime) -> None:
    assert expiry_of(text, NOW) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "90x",
        "0d",
        "-1d",
        "1.5d",
        "1 d",
        "999999999d",
        "9999999999d",
        "2026-11-01",
        "2026-11-01T12:00",
        "2027-02-30",
    ],
)
def test_what_is_no_time_to_come_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 90d, 12h, 30m, a date like 2027-01-01"):
        expiry_of(text, NOW)


@given(st.text(max_size=20))
def test_any_text_is_an_expiry_in_the_future_or_refused(text: str) -> None:
    try:
        moment = expiry_of(text, NOW)
    except ValueError:
        return
    assert moment > NOW


@pytest.mark.parametrize(("text", "expected"), [("1/min", 1), ("600/min", 600), ("1000000/min", 1_000_000)])
def test_a_rate_is_a_number_per_minute(text: str, expected: int) -> None:
    assert rate_of(text) == expected


@pytest.mark.parametrize("text", ["", "600", "600/s", "0/min", "1000001/min", "-1/min", "1.5/min", "6 / min", "٣/min"])
def test_what_is_no_rate_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 600/min"):
        rate_of(text)
