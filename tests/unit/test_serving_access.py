"""Who may call: which keys let a request in, what a refusal tells, and what a change of the file does."""

import hmac
import logging
import traceback
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.key_ring import LOOK_EVERY_S, MovingWindow
from release_platform.domain.api_keys import Scope
from serving.access import Access
from serving.errors import Forbidden, Problem, TooManyRequests, Unauthenticated, problem_response
from serving.settings import Settings
from tests.fakes.clock import FakeClock

Make = Callable[..., bytes]
UNKNOWN = b"mrp_0123456789ab_" + b"x" * 43
SOON = datetime(2026, 11, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 11, 1, tzinfo=UTC))


@pytest.fixture
def file(tmp_path: Path, clock: FakeClock) -> ApiKeyFile:
    file = ApiKeyFile(tmp_path / "api-keys.json", clock)
    file.create("somebody else", list(Scope))
    return file


@pytest.fixture
def path(file: ApiKeyFile, tmp_path: Path) -> Path:
    return tmp_path / "api-keys.json"


@pytest.fixture
def make(file: ApiKeyFile) -> Make:
    """Makes a key and returns its text."""

    def made(*scopes: Scope, **given_: object) -> bytes:
        return file.create("caller", scopes or (Scope.PREDICT,), **given_)[1].encode()  # type: ignore[arg-type]

    return made


def access_to(path: Path | None, clock: FakeClock, **more: int) -> Access:
    return Access(path, clock=clock, seconds=clock.seconds, **more)


def key_id(key: bytes) -> str:
    return key[4:16].decode()


def refusal(access: Access, key: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        access.admit(None, key, Scope.PREDICT)
    return caught.value


def test_a_key_lets_in_by_either_header_and_says_whose_it_is(path: Path, clock: FakeClock, make: Make) -> None:
    key = make(Scope.PREDICT)
    access = access_to(path, clock)
    for authorization in (b"Bearer " + key, b"bearer " + key, b"BEARER   " + key):
        caller = access.admit(authorization, None, Scope.PREDICT)
        assert caller is not None
        assert (caller.key_id, caller.name) == (key_id(key), "caller")
    assert access.admit(None, key, Scope.PREDICT) == caller


def test_a_login_of_a_proxy_does_not_stand_in_the_way_of_a_key(path: Path, clock: FakeClock, make: Make) -> None:
    access = access_to(path, clock)
    key = make()
    clock.pass_s(LOOK_EVERY_S)
    assert access.admit(b"Basic dXNlcjpwYXNz", key, Scope.PREDICT) is not None
    with pytest.raises(Unauthenticated):
        access.admit(b"Bearer " + key, UNKNOWN, Scope.PREDICT)


@pytest.mark.parametrize("authorization", [None, b"", b"Basic dXNlcjpwYXNz", b"Bearer", b"Bearer a b"])
def test_without_a_key_the_refusal_says_how_to_send_one(
    path: Path, clock: FakeClock, authorization: bytes | None
) -> None:
    with pytest.raises(Unauthenticated, match="X-API-Key: KEY") as caught:
        access_to(path, clock).admit(authorization, None, Scope.PREDICT)
    answer = problem_response(caught.value, instance="/", request_id="1")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_browser_is_asked_for_a_key_to_read_and_for_no_more(path: Path, clock: FakeClock, make: Make) -> None:
    key = make(Scope.PREDICT, Scope.READ, Scope.ADMIN)
    access = access_to(path, clock)
    login = b"Basic " + b64encode(b"anybody:" + key)
    with pytest.raises(Unauthenticated) as caught:
        access.admit(None, None, Scope.READ)
    assert caught.value.headers["www-authenticate"].startswith("Bearer, Basic realm=")
    caller = access.admit(login, None, Scope.READ)
    assert caller is not None
    assert caller.key_id == key_id(key)
    for scope in (Scope.PREDICT, Scope.ADMIN):
        with pytest.raises(Unauthenticated):
            access.admit(login, None, scope)
    for wrong in (b"Basic !", b"Basic " + b64encode(key), b"Basic " + b64encode(b"anybody:" + key + b"x")):
        with pytest.raises(Unauthenticated):
            access.admit(wrong, None, Scope.READ)


def test_a_refusal_names_the_key_for_the_log(path: Path, clock: FakeClock, make: Make) -> None:
    key = make(rate_per_minute=1)
    access = access_to(path, clock)
    assert access.admit(None, key, Scope.PREDICT) is not None
    assert refusal(access, key).caller_id == key_id(key)
    with pytest.raises(Forbidden) as caught:
        access.admit(None, key, Scope.READ)
    assert caught.value.caller_id == key_id(key)


def test_a_key_is_for_its_scopes_only(path: Path, clock: FakeClock, make: Make) -> None:
    key = make(Scope.PREDICT, Scope.ADMIN)
    access = access_to(path, clock)
    for scope in (Scope.PREDICT, Scope.ADMIN):
        assert access.admit(None, key, scope) is not None
    for scope in (Scope.READ, Scope.OPERATOR):
        with pytest.raises(Forbidden, match=f"{key_id(key)} has no scope '{scope}'") as caught:
            access.admit(None, key, scope)
        assert caught.value.status == 403


def test_a_key_is_good_until_the_moment_of_its_expiry(path: Path, clock: FakeClock, make: Make) -> None:
    key = make(expires_at=SOON)
    access = access_to(path, clock)
    clock.pass_s((SOON - clock.now() - timedelta(microseconds=1)).total_seconds())
    assert access.admit(None, key, Scope.PREDICT) is not None
    clock.pass_s(1e-6)
    assert clock.now() == SOON
    assert isinstance(refusal(access, key), Unauthenticated)


def test_a_refusal_does_not_tell_an_unknown_key_from_one_that_was_good(
    path: Path, clock: FakeClock, make: Make, file: ApiKeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked = make()
    file.revoke(key_id(revoked), "lost")
    expired = make(expires_at=SOON)
    clock.pass_s(3600)
    wrong = make()[:-43] + b"x" * 43
    access, compared = access_to(path, clock), []
    real = hmac.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    problems = [refusal(access, key) for key in (UNKNOWN, wrong, expired, revoked)]
    assert {(type(problem), problem.detail) for problem in problems} == {(Unauthenticated, problems[0].detail)}
    assert compared == [(32, 32)] * 4


def test_the_hash_that_stands_for_unknown_ids_lets_nobody_in(path: Path, clock: FakeClock) -> None:
    assert isinstance(refusal(access_to(path, clock), b"\x00" * 32), Unauthenticated)


def test_a_revocation_and_a_new_key_are_seen_within_seconds(
    path: Path, clock: FakeClock, make: Make, file: ApiKeyFile
) -> None:
    key = make()
    access = access_to(path, clock)
    file.revoke(key_id(key), "lost")
    fresh = make()
    clock.pass_s(LOOK_EVERY_S - 0.1)
    assert access.admit(None, key, Scope.PREDICT) is not None, "the file is not looked at for each request"
    clock.pass_s(0.1)
    assert isinstance(refusal(access, key), Unauthenticated)
    assert access.admit(None, fresh, Scope.PREDICT) is not None
    assert access.problem == ""


@pytest.mark.parametrize("harm", ["malformed", "gone", "a folder"])
def test_when_the_file_goes_bad_the_keys_read_before_still_count(
    path: Path, clock: FakeClock, make: Make, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    key = make()
    good = path.read_bytes()
    access = access_to(path, clock)
    path.unlink()
    if harm == "malformed":
        path.write_bytes(good[:-10])
    elif harm == "a folder":
        path.mkdir()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            clock.pass_s(LOOK_EVERY_S)
            assert access.admit(None, key, Scope.PREDICT) is not None
    assert str(path) in access.problem
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "STILL COUNT" in record.message
    if path.is_dir():
        path.rmdir()
    path.write_bytes(good)
    clock.pass_s(LOOK_EVERY_S)
    assert access.problem == ""
    assert access.admit(None, key, Scope.PREDICT) is not None


@pytest.mark.parametrize("harm", ["missing", "malformed"])
def test_a_server_does_not_start_with_a_bad_file(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "file"
    if harm == "malformed":
        path.write_text("{}}")
    with pytest.raises(ValueError, match=r"SERVING_API_KEYS: .*file") as caught:
        Access(path)
    assert not isinstance(caught.value, ValidationError)


def test_without_a_file_everybody_may_predict_and_read_and_nobody_do_more(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    access = access_to(None, clock)
    for key in (None, UNKNOWN):
        assert access.admit(None, key, Scope.PREDICT) is None
        assert access.admit(None, key, Scope.READ) is None
        for scope in (Scope.ADMIN, Scope.OPERATOR):
            with pytest.raises(Forbidden, match="SERVING_API_KEYS"):
                access.admit(None, key, scope)
    clock.pass_s(LOOK_EVERY_S)
    assert access.problem == ""
    access.announce()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "ANYBODY" in record.message


def test_a_limit_without_keys_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="needs SERVING_API_KEYS"):
        Access(None, rate_per_minute=600)


def test_a_key_is_held_to_its_rate_and_told_when_to_come_again(path: Path, clock: FakeClock, make: Make) -> None:
    key = make(rate_per_minute=3)
    access = access_to(path, clock)
    for _ in range(3):
        assert access.admit(None, key, Scope.PREDICT) is not None
        clock.pass_s(10)
    problem = refusal(access, key)
    assert isinstance(problem, TooManyRequests)
    assert (problem.status, problem.headers) == (429, {"retry-after": "30"})
    clock.pass_s(29.75)
    assert refusal(access, key).headers == {"retry-after": "1"}
    clock.pass_s(0.25)
    assert access.admit(None, key, Scope.PREDICT) is not None
    assert refusal(access, key).headers == {"retry-after": "10"}


def test_the_rate_of_the_server_holds_for_keys_without_one_each_by_itself(
    path: Path, clock: FakeClock, file: ApiKeyFile
) -> None:
    keys = [file.create(name, [Scope.PREDICT])[1].encode() for name in "ab"]
    own = file.create("own", [Scope.PREDICT], rate_per_minute=5)[1].encode()
    access = access_to(path, clock, rate_per_minute=2)
    for key, rate in ((keys[0], 2), (keys[1], 2), (own, 5)):
        for _ in range(rate):
            assert access.admit(None, key, Scope.PREDICT) is not None
        assert isinstance(refusal(access, key), TooManyRequests)


def test_a_key_that_is_not_good_or_not_for_this_takes_nothing_of_the_rate(
    path: Path, clock: FakeClock, make: Make
) -> None:
    key = make(rate_per_minute=1)
    access = access_to(path, clock)
    for text, scope in ((key[:-43] + b"x" * 43, Scope.PREDICT), (key, Scope.ADMIN)):
        with pytest.raises((Unauthenticated, Forbidden)):
            access.admit(None, text, scope)
    assert access.admit(None, key, Scope.PREDICT) is not None


def test_reading_the_file_again_forgives_nothing(path: Path, clock: FakeClock, make: Make, file: ApiKeyFile) -> None:
    key = make(rate_per_minute=1)
    access = access_to(path, clock)
    assert access.admit(None, key, Scope.PREDICT) is not None
    file.create("another", [Scope.READ])
    clock.pass_s(LOOK_EVERY_S)
    assert isinstance(refusal(access, key), TooManyRequests)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 5))
def test_within_any_minute_no_more_than_the_limit_are_taken_and_no_one_waits_too_long(
    gaps: list[int], limit: int
) -> None:
    window, now, taken = MovingWindow(limit), 0.0, []
    for gap in gaps:
        now += gap
        wait = window.wait_s(now)
        recent = [moment for moment in taken if now - moment < 60]
        if len(recent) < limit:
            assert wait == 0
            taken.append(now)
        else:
            assert wait == recent[-limit] + 60 - now > 0


HEADER = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=80).map(lambda rest: b"Bearer " + rest),
    st.binary(max_size=60).map(lambda rest: b"mrp_" + rest),
    st.binary(min_size=43, max_size=43).map(lambda rest: b"Bearer mrp_0123456789ab_" + rest),
    st.sampled_from([b"Bearer" + b" " * 1_000_000, b"mrp_" * 300_000, b"Bearer " + b"\xff" * 1_000_000, UNKNOWN]),
)


@given(HEADER, HEADER, st.sampled_from(Scope))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_whatever_raises_anything_but_the_refusal(
    path: Path, clock: FakeClock, authorization: bytes | None, x_api_key: bytes | None, scope: Scope
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        access_to(path, clock).admit(authorization, x_api_key, scope)
    assert len(caught.value.detail) < 200


def test_no_secret_is_in_logs_answers_tracebacks_or_what_is_printed(
    path: Path, clock: FakeClock, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = make(rate_per_minute=1)
    access = access_to(path, clock)
    access.announce()
    said = [repr(access), repr(access.admit(None, key, Scope.PREDICT)), repr(vars(access))]
    wrong = key[:-1] + (b"x" if key[-1:] != b"x" else b"y")
    for text, scope in ((key, Scope.PREDICT), (key, Scope.ADMIN), (wrong, Scope.PREDICT), (key + b" ", Scope.READ)):
        for headers in ((None, text), (b"Bearer " + text, None)):
            with pytest.raises(Problem) as caught:
                access.admit(*headers, scope)
            said += traceback.format_exception(caught.value)
            said.append(bytes(problem_response(caught.value, instance="/", request_id="1").body).decode())
    path.write_bytes(path.read_bytes().replace(b'"name"', key))
    clock.pass_s(LOOK_EVERY_S)
    said.append(access.problem)
    assert access.problem
    assert key[17:-1].decode() not in "".join(said) + caplog.text


def test_the_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings().api_keys, Settings().rate_limit) == (None, None)
    monkeypatch.setenv("SERVING_API_KEYS", "keys.json")
    monkeypatch.setenv("SERVING_RATE_LIMIT", "600/min")
    assert (Settings().api_keys, Settings().rate_limit) == (Path("keys.json"), 600)
    monkeypatch.setenv("SERVING_API_KEYS", "")
    monkeypatch.setenv("SERVING_RATE_LIMIT", "")
    assert (Settings().api_keys, Settings().rate_limit) == (None, None)
    monkeypatch.setenv("SERVING_RATE_LIMIT", "600")
    with pytest.raises(ValidationError, match="write it like 600/min"):
        Settings()
