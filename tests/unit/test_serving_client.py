"""The client of a server: every failure becomes one of ours, with a remedy."""

import inspect

import httpx
import pytest

from release_platform.adapters.serving_client import ServingClient, await_version
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


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx.Response(503, json={"detail": "not loaded"}), Unavailable),
        (httpx.Response(404, json={"detail": "there is no model"}), VerificationFailed),
        (httpx.Response(200, text="<html>"), VerificationFailed),
        (httpx.Response(200, content=b"\xff"), VerificationFailed),
        (httpx.Response(200, json=[]), VerificationFailed),
        (httpx.Response(200, json={"model": "m"}), VerificationFailed),
    ],
    ids=["503", "404", "html", "bytes", "list", "incomplete"],
)
def test_an_answer_that_is_no_prediction_is_refused(response, error):
    with client_that(lambda request: response) as client, pytest.raises(error):
        client.predict("m", {"a": [1]})


def test_rows_and_columns_are_sent_as_asked():
    bodies = []

    def answer(request):
        bodies.append(request.content)
        named = {"model": "m", "version": "1", "digest": "d", "engine": "skops"}
        return httpx.Response(200, json=named | {"predictions": [1.0, 2.0]})

    with client_that(answer) as client:
        client.predict("m", {"a": [1, 2], "b": [3, None]})
        served = client.predict("m", {"a": [1, 2], "b": [3, None]}, as_rows=True)
    assert bodies == [b'{"columns":{"a":[1,2],"b":[3,null]}}', b'{"rows":[{"a":1,"b":3},{"a":2,"b":null}]}']
    assert served.predictions == {"predictions": [1.0, 2.0]}


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
