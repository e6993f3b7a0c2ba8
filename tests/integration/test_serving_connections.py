"""What a client does with its connection harms neither the server nor other clients."""

import re
import signal
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any, cast

import httpx
import pytest
from starlette.responses import Response

from serving.connection import LAST_CHANCE_S
from serving.server import PATIENCE_S, build_server
from tests.fakes.raw_client import RawClient, post, request
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import on_a_thread, running, settings_for, until
from tests.fakes.serving_process import running_process

READS_BODY = "/v1/models/x/certificate"
LIMITS = {"header_timeout_s": 0.6, "keep_alive_s": 0.6, "send_timeout_s": 0.6, "max_head_bytes": 2048}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    settings = settings_for(tmp_path_factory.mktemp("server") / "cache", **LIMITS)
    with running(settings, FakeRegistry({})) as address:
        yield address


@pytest.fixture
def port(url):
    return int(url.rpartition(":")[2])


@pytest.fixture
def connect():
    """Opens connections that are closed at the end of the test."""
    with ExitStack() as held:
        yield lambda port, **how: held.enter_context(RawClient(port, **how))


def n_cut(url, reason):
    text = httpx.get(f"{url}/metrics").text
    found = re.search(rf'^serving_connections_cut_total{{reason="{reason}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def is_cut_off(client, sent):
    """Whether the server ends the connection of a client that sends on."""
    try:
        for _ in range(100):
            client.send(sent)
            time.sleep(0.05)
    except ConnectionError:
        return True
    return False


# Time


@pytest.mark.parametrize("parts", [[b"GET"], [b"G", b"E", b"T", b" "]], ids=["stops", "drips"])
def test_a_head_that_does_not_arrive_in_time_is_answered_408(url, port, parts):
    before = n_cut(url, "head-timeout")
    with RawClient(port) as client:
        begun = time.monotonic()
        for part in parts:
            client.send(part)
            time.sleep(0.1)
        answer = client.answer()
        assert 0.5 < time.monotonic() - begun < 5
        assert (answer.status, answer.slug, answer.says_close) == (408, "head-timeout", True)
    assert n_cut(url, "head-timeout") == before + 1


def test_a_second_head_has_its_own_time(port):
    with RawClient(port) as client:
        assert client.get("/livez").status == 200
        time.sleep(0.4)
        client.send(request("/livez")[:10])
        time.sleep(0.4)  # more than the idle time and the first head's time together have passed
        client.send(request("/livez")[10:])
        assert client.answer().status == 200
        client.send(b"GET")
        assert client.answer().slug == "head-timeout"


@pytest.mark.parametrize("n_requests", [0, 1, 3])
def test_an_idle_connection_is_ended_without_a_word(port, n_requests):
    with RawClient(port) as client:
        for _ in range(n_requests):
            assert client.get("/livez").status == 200
        assert 0.4 < client.ended_after() < 5


def test_a_body_that_drips_on_after_its_answer_is_cut_off_without_a_second_answer(port):
    with RawClient(port) as client:
        client.send(post("/livez", 1000))
        assert client.answer().status == 405
        assert is_cut_off(client, b" ")
        with pytest.raises((EOFError, ConnectionError)):
            client.answer()


def test_a_client_that_does_not_read_is_cut_off(url, port):
    before = n_cut(url, "unread")
    with RawClient(port, receive_buffer_bytes=4096) as client:
        assert is_cut_off(client, request("/openapi.json") * 8)
    assert n_cut(url, "unread") == before + 1


def test_a_client_that_reads_slowly_gets_all_of_its_answer(port):
    with RawClient(port, receive_buffer_bytes=4096) as client:
        whole = client.get("/openapi.json").body
        client.send(request("/openapi.json") * 20)
        for _ in range(20):
            time.sleep(0.05)
            assert client.answer().body == whole


@pytest.mark.parametrize("headers", [(), ("Connection: close",)], ids=["goes on", "ends"])
def test_a_client_that_reads_on_has_as_long_as_it_takes(tmp_path, headers):
    server = build_server(settings_for(tmp_path / "cache", send_timeout_s=1, keep_alive_s=30), FakeRegistry({}))
    large = b"x" * 20_000_000
    cast(Any, server.config.app).add_api_route("/large", lambda: Response(large))
    with on_a_thread(server) as url, RawClient(int(url.rpartition(":")[2]), receive_buffer_bytes=65536) as client:
        client.send(request("/large", *headers))
        begun, n_read = time.monotonic(), 0
        while n_read < len(large):
            n_more = len(client.socket.recv(65536))
            assert n_more, f"it was cut off after {n_read} bytes"
            n_read += n_more
            time.sleep(max(0.0, begun + n_read / 8_000_000 - time.monotonic()))


# Size and number


def head_of(n_bytes):
    """Returns a request whose path, header names and values, with four bytes around each pair, have that many bytes."""
    return request("/livez", "X: " + "x" * (n_bytes - len("/livez") - len("Hostx") - 4 - len("X") - 4))


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize(("n_bytes", "status"), [(2047, 200), (2048, 200), (2049, 431), (100_000, 431)])
def test_a_head_is_taken_up_to_the_limit(port, n_bytes, status, in_parts):
    with RawClient(port) as client:
        head = head_of(n_bytes)
        for part in [head[:1000], head[1000:]] if in_parts else [head]:
            client.send(part)
            time.sleep(0.02)
        answer = client.answer()
        assert answer.status == status
        assert answer.says_close == (status == 431)


def test_the_size_of_a_body_does_not_count_for_the_head(port):
    body = b" " * 100_000
    with RawClient(port) as client:
        client.send(post(READS_BODY, len(body)) + body)
        assert client.answer().status == 400
        assert client.get("/livez").status == 200


def test_chunks_count_by_what_is_in_them_and_their_frames_may_not_be_much_more(port):
    head = post(READS_BODY, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with RawClient(port) as client:
        client.send(head + b"1\r\n \r\n" * 5000 + b"0\r\n\r\n")
        assert client.answer().slug == "malformed-body"
        client.send(head + b"1;" + b"x" * 2_000_000)
        assert client.answer().slug == "invalid-http"


def test_ten_megabytes_of_head_are_refused_early_and_the_answer_arrives(port):
    with RawClient(port) as client:
        client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000_000)
        answer = client.answer()
        assert (answer.status, answer.slug) == (431, "head-too-large")


@pytest.mark.parametrize("n_requests", [0, 1])
def test_blank_lines_count_as_the_head_of_the_request_that_they_stand_before(port, n_requests):
    with RawClient(port) as client:
        for _ in range(n_requests):
            client.send(b"\r\n" * 1000)
            assert client.get("/livez").status == 200
        client.send(b"\r\n" * 40_000)
        answer = client.answer()
        assert (answer.status, answer.slug, answer.says_close) == (431, "head-too-large", True)


def test_the_answer_to_a_body_that_is_too_large_arrives_though_it_is_sent_whole_first(port):
    with RawClient(port) as client:
        client.send(post(READS_BODY, 20_000_000) + b" " * 20_000_000)
        answer = client.answer()
        assert (answer.status, answer.says_close) == (413, True)


@pytest.mark.parametrize("n_ahead", [32, 33, 34, 5000])
def test_requests_are_sent_ahead_of_their_answers_up_to_a_number_then_the_last_answer_says_so(port, n_ahead):
    with RawClient(port) as client:
        client.send(b"".join(request(f"/livez?{n}", f"X-Request-Id: {n}") for n in range(n_ahead)))
        answered = min(n_ahead, 33)  # one is answered, 32 wait
        answers = [client.answer() for _ in range(answered)]
        assert [answer.headers["x-request-id"] for answer in answers] == [str(n) for n in range(answered)]
        assert [answer.says_close for answer in answers] == [False] * (answered - 1) + [n_ahead > answered]


def test_connections_beyond_the_limit_are_told_to_come_again_until_one_is_free(tmp_path, connect):
    with running(settings_for(tmp_path / "cache", max_connections=3), FakeRegistry({})) as url:
        port = int(url.rpartition(":")[2])
        held = [connect(port) for _ in range(3)]
        assert [client.get("/livez").status for client in held] == [200] * 3
        for _ in range(5):
            with RawClient(port) as beyond:
                answer = beyond.get("/livez")
                assert (answer.status, answer.slug, answer.says_close) == (503, "too-many-connections", True)
                assert int(answer.headers["retry-after"]) > 0
        assert [client.get("/livez").status for client in held] == [200] * 3
        held.pop().socket.close()

        def is_served():
            with RawClient(port) as client:
                return client.get("/livez").status == 200

        until(is_served)


def test_of_many_connections_beyond_the_limit_a_few_are_told_so_and_the_others_are_cut_off(tmp_path):
    settings = settings_for(tmp_path / "cache", max_connections=100)
    with running(settings, FakeRegistry({})) as url, ExitStack() as held:
        clients = [held.enter_context(RawClient(int(url.rpartition(":")[2]))) for _ in range(200)]
        assert [client.get("/livez").status for client in clients[:100]] == [200] * 100
        n_told = sum(is_told(client) for client in clients[100:])
        assert 64 <= n_told < 100


def is_told(client):
    """Whether a connection beyond the limit is answered."""
    try:
        return client.get("/livez").slug == "too-many-connections"
    except (EOFError, ConnectionError):
        return False


# Words


def to(url, method=b"GET"):
    return b"%b %b HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n" % (method, url)


GARBAGE = [
    b"GARBAGE\r\n\r\n",
    to(b"x:1", b"CONNECT"),
    *(to(url) for url in (b"http://\xe9/", b"http://h", b"http://h?x", b"http:///x", b"http://h:99999/x")),
    to(b"http://h", b"POST"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_http_is_answered_after_the_requests_before_it(port, garbage):
    with RawClient(port) as client:
        client.send(request("/livez") * 2 + garbage)
        assert [client.answer().status for _ in range(2)] == [200, 200]
        answer = client.answer()
        assert (answer.status, answer.slug, answer.says_close) == (400, "invalid-http", True)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_http_is_answered_though_nothing_came_before_it(port, garbage):
    with RawClient(port) as client:
        client.send(garbage)
        answer = client.answer()
        assert (answer.status, answer.slug, answer.says_close) == (400, "invalid-http", True)


def test_a_url_may_name_the_server_too(port):
    with RawClient(port) as client:
        client.send(to(b"http://h/livez"))
        assert client.answer().status == 200


def test_a_fault_in_a_body_is_the_answer_to_its_request(port):
    head = post(READS_BODY, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with RawClient(port) as client:
        client.send(request("/livez") + head + b"1\r\n \r\nzz\r\n")
        assert client.answer().status == 200
        assert client.answer().slug == "invalid-http"
        with pytest.raises(EOFError):
            client.answer()


@pytest.mark.parametrize("offered", [("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"), ()])
def test_an_offer_of_another_protocol_is_declined_and_the_body_is_read(port, offered):
    with RawClient(port) as client:
        client.send(post(READS_BODY, 5, *offered) + b"[1,2]" + request("/livez"))
        answer = client.answer()
        assert (answer.status, answer.slug) == (422, "invalid-push")
        assert client.answer().status == 200


def test_offers_of_another_protocol_are_declined_as_far_as_requests_may_be_sent_ahead(port):
    with RawClient(port) as client:
        client.send(post("/invocations", 0, "Upgrade: h", "Connection: upgrade") * 2500)
        answers = [client.answer() for _ in range(34)]  # the first one at once, one is answered, 32 wait
        assert [answer.slug for answer in answers] == ["model-not-loaded"] * 34
        assert [answer.says_close for answer in answers] == [False] * 33 + [True]


# The end


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_loses_no_accepted_request_whatever_clients_do(tmp_path, connect, workers):
    with running_process(tmp_path, workers=workers) as server:
        slow, body, half, idle, silent, unread, fresh, never = (connect(server.port) for _ in range(8))
        overfill(unread)
        slow.send(request("/slow?seconds=3"))
        body.send(post(READS_BODY, 5) + b"[1,")
        half.send(request("/livez")[:10])
        idle.get("/livez")
        never.send(post(READS_BODY, 5) + b"[1,")
        looping = [threading.Thread(target=ask_until_close, args=(server.port, answers := [])) for _ in range(4)]
        for thread in looping:
            thread.start()
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        last = fresh.get("/livez")  # a connection that was open may have one request more
        assert (last.status, last.says_close) == (200, True)
        half.send(request("/livez")[10:])
        assert half.answer().says_close
        time.sleep(LAST_CHANCE_S + 0.5)
        body.send(b"2]")
        answer = body.answer()
        assert (answer.slug, answer.says_close) == ("invalid-push", True)
        answer = slow.answer()
        assert (answer.status, answer.says_close) == (200, True)
        assert idle.ended_after() < 5
        assert silent.ended_after() < 5
        assert never.answer().slug in {"body-timeout", "stopping"}
        for thread in looping:
            thread.join(20)
        assert answers
        assert set(answers) == {200}
        assert server.ended_within(20) < 20
        assert server.process.returncode == 0
        assert "Traceback" not in server.log.read_text(), server.log.read_text()[-6000:]


def ask_until_close(port, answers):
    """Asks again and again on one connection, until an answer says that it is the last."""
    with RawClient(port) as client:
        while True:
            answer = client.get("/livez")
            answers.append(answer.status)
            if answer.says_close:
                return


def overfill(client):
    """Asks for more than fits between server and client, and does not read."""
    client.socket.settimeout(0.5)
    try:
        for _ in range(400):
            client.send(request("/openapi.json") * 4)
            time.sleep(0.005)
    except (TimeoutError, ConnectionError):
        pass


def test_a_head_that_stops_after_a_slow_request_does_not_take_the_place_of_its_answer(tmp_path):
    with running_process(tmp_path, header_timeout_s=0.3, keep_alive_s=0.3) as server, RawClient(server.port) as client:
        assert client.get("/livez").status == 200
        client.send(request("/slow?seconds=1") + b"GET")
        time.sleep(0.1)
        client.send(b" ")
        assert client.answer().status == 200
        assert client.answer().slug == "head-timeout"
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("rest", "more"), [(b"", []), (b"GET", []), (post(READS_BODY, 5) + b"[1,", [400]), (GARBAGE[0], [400])]
)
def test_who_says_nothing_more_has_the_answers_to_what_came_whole(tmp_path, rest, more):
    with running_process(tmp_path) as server, RawClient(server.port) as client:
        client.send(request("/slow?seconds=0.5") + request("/livez") + rest)
        client.socket.shutdown(socket.SHUT_WR)
        statuses = [200, 200, *more]
        assert [client.answer().status for _ in statuses] == statuses
        assert client.ended_after() < 1
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_prediction_that_hangs_does_not_keep_the_server(tmp_path, workers):
    with running_process(tmp_path, workers=workers, shutdown_s=1) as server, RawClient(server.port) as client:
        client.send(request("/hang"))
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        answer = client.answer()
        assert (answer.status, answer.slug, answer.says_close) == (503, "stopping", True)
        assert server.ended_within(20) < 1 + PATIENCE_S + 2
        assert server.process.returncode == 1
        assert "_sleep" in server.log.read_text()  # the log shows what it hung in


def test_connections_that_the_system_took_before_the_end_are_served(tmp_path, connect):
    with running_process(tmp_path) as server:
        blocking = connect(server.port)
        blocking.send(request("/block?seconds=1"))
        time.sleep(0.3)
        waiting = [connect(server.port) for _ in range(100)]
        for client in waiting:
            client.send(request("/livez"))
        server.process.send_signal(signal.SIGTERM)
        assert blocking.answer().status == 200
        for client in waiting:
            answer = client.answer()
            assert (answer.status, answer.says_close) == (200, True)
        assert server.ended_within(20) < 20
        assert server.process.returncode == 0


def test_while_load_balancers_are_told_everything_is_answered(tmp_path):
    with running_process(tmp_path, drain_s=1.5) as server:
        server.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        while time.monotonic() - begun < 1.2:
            answer = httpx.get(f"{server.url}/livez")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert server.ended_within(20) < 20
        assert server.process.returncode == 0
