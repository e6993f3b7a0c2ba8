"""The client of a server: every failure becomes one of ours, with a remedy."""

import inspect

import httpx
import pytest

from release_platform.adapters.serving_client import ServingClient, await_version
from release_platform.adapters.serving_protocols import Asked
from release_platform.domain.errors import Unavailable, VerificationFailed

URL = "http://127.0.0.1:1"


def client_that(answer):
    return ServingClient(URL, 1.0, transport=httpx.MockTransport(answer))


def raising(error):
    def answer(request):
        raise error

    return answer


def errors_of_httpx():
    found = [kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)]
    assert len(found) > 25
    return found


def make(kind):
    if kind is httpx.HTTPStatusError:
        return kind("x", request=httpx.Request("GET", URL), response=httpx.Response(500))
    if kind in {httpx.RequestNotRead, httpx.ResponseNotRead, httpx.StreamClosed, httpx.StreamConsumed}:
        return kind()
    return kind("x")


@pytest.mark.parametrize("kind", errors_of_httpx(), ids=lambda kind: kind.__name__)
def test_every_error_of_httpx_is_translated(kind):
    with client_that(raising(make(kind))) as client, pytest.raises(Unavailable) as caught:
        client.status()
    assert caught.value.remedy


def test_a_server_that_does_not_answer_is_not_ready():
    with client_that(raising(httpx.ConnectError("x"))) as client:
        assert not client.ready()
    with client_that(lambda request: httpx.Response(503)) as client:
        assert not client.ready()
    with client_that(lambda request: httpx.Response(200)) as client:
        assert client.ready()


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x", "http://[", "http://a:b"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(Unavailable), ServingClient(url, 0.1) as client:
        client.status()


ASKED = Asked(path="/p", body=b"x", media_type="text/csv", headers={"x-more": "1"})


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx.Response(503, json={"detail": "not loaded"}), Unavailable),
        (httpx.Response(503, text="<html>"), Unavailable),
        (httpx.Response(502, text="<html>"), Unavailable),
        (httpx.Response(504, text="<html>"), Unavailable),
        (httpx.Response(429, json={"detail": "too many"}), Unavailable),
        (httpx.Response(401, json={"detail": "not valid"}), Unavailable),
        (httpx.Response(403, text="<html>"), Unavailable),
        (httpx.Response(404, json={"detail": "there is no model"}), VerificationFailed),
        (httpx.Response(500, text="<html>"), VerificationFailed),
        (httpx.Response(400, content=b"\xff"), VerificationFailed),
        (httpx.Response(422, json=[]), VerificationFailed),
        (httpx.Response(302, json={}), VerificationFailed),
    ],
)
def test_an_answer_of_another_status_is_an_error(response, error):
    with client_that(lambda request: response) as client, pytest.raises(error) as caught:
        client.ask(ASKED)
    assert type(caught.value) is error
    assert caught.value.problem.startswith(URL)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "response", [httpx.Response(200, text="<html>"), httpx.Response(200, content=b"\xff"), httpx.Response(200, json=[])]
)
def test_an_answer_that_is_no_status_is_refused(response):
    with client_that(lambda request: response) as client, pytest.raises(VerificationFailed):
        client.status()


def test_what_is_asked_is_sent_as_it_is_with_the_api_key_and_the_answer_comes_with_its_headers():
    requests = []

    def answer(request):
        requests.append(request)
        return httpx.Response(200, content=b"said", headers={"X-Model-Epoch": "3"})

    with ServingClient(URL, api_key="mrp_key", transport=httpx.MockTransport(answer)) as client:
        body, headers, latency_ms = client.ask(ASKED)
    (request,) = requests
    assert (request.method, request.url.path, request.content) == ("POST", "/p", b"x")
    sent = {name: request.headers[name] for name in ("content-type", "x-more", "authorization", "connection")}
    assert sent == {
        "content-type": "text/csv",
        "x-more": "1",
        "authorization": "Bearer mrp_key",
        "connection": "close",
    }
    assert (body, headers["x-model-epoch"]) == (b"said", "3")
    assert latency_ms > 0


def test_a_version_is_awaited_until_it_is_live_or_the_time_is_over():
    live = iter(["1", "1", "2", "2"])
    times = iter(range(100))

    def answer(request):
        entry = {"version": next(live), "refusal": {"reason": "tampered"}}
        return httpx.Response(200, json={"models": {"m": entry}})

    with client_that(answer) as client:
        waited = await_version(client, "m", "2", within_s=10, now=lambda: next(times), sleep=lambda _: None)
        assert waited == 3
        with pytest.raises(Unavailable, match="tampered"):
            await_version(client, "m", "3", within_s=0, now=lambda: next(times), sleep=lambda _: None)
