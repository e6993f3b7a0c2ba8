"""Who the proxy says signed in: believed beside the proxy's secret, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.defs.attribution import PERSON_HEADER, PROXY_HEADER, signed_in

SECRET = "proxy-secret-of-a-test"


def by(name: str, secret: str = SECRET) -> str | None:
    sent = {PERSON_HEADER: name.encode().decode("latin-1"), PROXY_HEADER: secret}
    return signed_in(sent.get, SECRET)


@pytest.mark.parametrize("name", ["ada", "ada@example.org", "José García", "x" * 100])
def test_the_proxy_names_who_signed_in(name: str) -> None:
    assert by(name) == name


@pytest.mark.parametrize(
    "secret", ["", SECRET[:-1], SECRET + "x", SECRET.upper(), "é", "\udc80".encode("utf-8", "replace").decode()]
)
def test_without_the_secret_no_name_is_believed(secret: str) -> None:
    assert by("ada", secret) is None


def test_without_a_secret_of_its_own_the_server_believes_nobody() -> None:
    for shown in ("", "x"):
        assert signed_in({PERSON_HEADER: "ada", PROXY_HEADER: shown}.get, "") is None
    assert signed_in({PERSON_HEADER: "ada"}.get, SECRET) is None
    assert signed_in({PROXY_HEADER: SECRET}.get, SECRET) is None


@pytest.mark.parametrize("name", ["", " ", " ada", "ada ", "a\nb", "x" * 101, "mrp_0123456789ab_" + "x" * 43])
def test_what_cannot_be_the_name_of_a_key_is_nobodys(name: str) -> None:
    assert by(name) is None


def test_a_name_that_is_not_utf_8_is_nobodys() -> None:
    assert signed_in({PERSON_HEADER: "jos\xe9", PROXY_HEADER: SECRET}.get, SECRET) is None


@given(st.text(), st.text())
def test_no_header_whatever_names_anybody_without_the_secret(name: str, secret: str) -> None:
    sent = {PERSON_HEADER: name, PROXY_HEADER: secret.encode("utf-8", "replace").decode()}
    assert signed_in(sent.get, SECRET) is None or secret == SECRET
