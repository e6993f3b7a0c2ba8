"""Talks to a server over HTTP, as any client would."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from release_platform.adapters.loopback import is_loopback
from release_platform.adapters.serving_protocols import Asked
from release_platform.adapters.whole_deadline import WholeDeadline
from release_platform.domain.errors import Unavailable, VerificationFailed
from release_platform.domain.held_outcomes import HeldOutcome, Settled
from release_platform.domain.ports import Given, HandedIn
from release_platform.domain.refusals import CallsOfMinute
from release_platform.domain.samples import Label, Sample
from release_platform.domain.windows import Route, Window

_REFUSED: dict[int, str] = {
    httpx.codes.UNAUTHORIZED: "asks for an API key that is good",
    httpx.codes.FORBIDDEN: "does not let this API key do it",
}
_LATER = frozenset(
    {
        httpx.codes.TOO_MANY_REQUESTS,
        httpx.codes.BAD_GATEWAY,  # this one and the last: a proxy says that the server does not answer
        httpx.codes.SERVICE_UNAVAILABLE,
        httpx.codes.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldSamples:
    """What a server tells of its sample.

    Attributes:
        samples: Those of minutes that are over.
        labels: The labels that came in such minutes.
        calls: How many calls came in such minutes, and were refused.
        closed: The last minute of which it told all.
        more: Whether there is more of minutes that are over.
        n_silent: How many of its processes did not answer in time.
    """

    samples: tuple[Sample, ...]
    labels: tuple[Label, ...]
    calls: tuple[CallsOfMinute, ...]
    closed: int
    more: bool
    n_silent: int


class ServingClient:
    """One server.

    Args:
        base_url: Its address, e.g. `http://127.0.0.1:8000`.
        timeout_s: Seconds that each step of a request may take.
        connect_s: Seconds that connecting may take; None for `timeout_s`.
        whole_s: Seconds that all of a request may take, up to the last byte of its answer; None: no such limit.
        api_key: The API key that is shown with every request; empty for none. It is never printed.
        transport: How requests travel; None for the network.

    Raises:
        Unavailable: The address is none, or the key cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        timeout_s: float = 10.0,
        *,
        connect_s: float | None = None,
        whole_s: float | None = None,
        api_key: str = "",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        with _translated(self.base_url):
            # A proxy of the environment cannot reach this machine's own addresses.
            trust_env = not is_loopback(httpx.URL(self.base_url).host)
            if transport is None and whole_s is not None:
                transport = WholeDeadline(whole_s, trust_env=trust_env)
            timeout = httpx.Timeout(timeout_s, connect=timeout_s if connect_s is None else connect_s)
            self._client = httpx.Client(
                base_url=self.base_url,
                headers=_shown(api_key),
                timeout=timeout,
                trust_env=trust_env,
                transport=transport,
            )

    def __enter__(self) -> "ServingClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def ready(self) -> bool:
        """Returns whether the server takes traffic; False also when it does not answer at all."""
        try:
            return self._request("GET", "/readyz").status_code == httpx.codes.OK
        except Unavailable:
            return False

    def status(self) -> dict[str, Any]:
        """Returns what `/status` says.

        Raises:
            Unavailable: The server does not answer.
            VerificationFailed: The answer is no status.
        """
        return self._read(self._request("GET", "/status"))

    def workers(self) -> frozenset[str]:
        """Returns the names of the processes behind this address; none where the server does not tell.

        Raises:
            Unavailable: The server does not answer, or a process of it does not.
            VerificationFailed: The answer is no status.
        """
        server = self._read(self._request("GET", "/status")).get("server")
        told = server if isinstance(server, dict) else {}
        if told.get("silent"):
            raise Unavailable(
                f"{self.base_url}: {told['silent']} of its workers do not answer the others",
                remedy=f"look at the server's log, and try again; `silent` in {self.base_url}/status says how many",
            )
        return frozenset(map(str, told.get("workers") or ()))

    def ask(self, asked: Asked) -> tuple[bytes, Mapping[str, str], float]:
        """Returns body and headers (lower-case names) of an answer, and the milliseconds until all of it was there.

        It goes over a connection of its own, so that any of several workers behind one port may take it.

        Raises:
            Unavailable: The server does not answer, asks for an API key, or has no version of the model loaded.
            VerificationFailed: It refuses what was asked.
        """
        own = {"x-model-route": "stable", "connection": "close"}  # a canary beside it is not what is asked for
        headers = {"content-type": asked.media_type, **own, **asked.headers}
        begun = time.perf_counter()
        response = self._request("POST", asked.path, content=asked.body, headers=headers)
        latency_ms = (time.perf_counter() - begun) * 1000
        if response.status_code != httpx.codes.OK:
            self._read(response)
            raise self._failed(f"status {response.status_code}")
        return response.content, response.headers, latency_ms

    def windows(self, after: int) -> tuple[tuple[HandedIn, ...], int]:
        """Returns what each process of the server counted in the minutes after one, and how many did not say.

        Those are among them that ended and handed over what they had counted to one that answers.

        Raises:
            Unavailable: The server does not answer, or asks for an API key.
            VerificationFailed: The answer is none.
        """
        said = self._read(self._request("GET", "/v1/windows", params={"after": after}))
        try:
            told = [each for one in said["replicas"] for each in (one, *one.get("before", ()))]
            return tuple(map(self._handed_in, told)), int(said["silent"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._failed(f"its windows cannot be read: {error}") from None

    def _handed_in(self, one: Mapping[str, Any]) -> HandedIn:
        return HandedIn(
            url=self.base_url,
            replica=one["replica"],
            ended=None if one.get("ended") is None else int(one["ended"]),
            since=int(one.get("since", 0)),  # a server of an older version says neither this nor what is whole
            whole=frozenset(map(int, one.get("whole", ()))),
            windows=tuple(map(Window.from_json, one["windows"])),
            gives={model: frozenset(map(_given, of)) for model, of in one.get("gives", {}).items()},  # nor this
        )

    def samples(self, after: int) -> ToldSamples:
        """Returns the sample of the minutes after one, or as much of it as the server tells at once.

        Raises:
            Unavailable: The server does not answer, or asks for an API key of the scope admin.
            VerificationFailed: The answer is none.
        """
        said = self._read(self._request("GET", "/admin/samples", params={"after": after}))
        try:
            return ToldSamples(
                samples=tuple(Sample.from_json(sample) for one in said["replicas"] for sample in one["samples"]),
                labels=tuple(  # a server of an older version tells none
                    Label.from_json(label) for one in said["replicas"] for label in one.get("labels", [])
                ),
                calls=tuple(
                    CallsOfMinute.from_json(of, one["replica"])
                    for one in said["replicas"]
                    for of in one.get("calls", [])
                ),
                closed=int(said["closed"]),
                more=said.get("more") is True,
                n_silent=int(said["silent"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._failed(f"its samples cannot be read: {error}") from None

    def held_outcomes(self, most: int) -> tuple[HeldOutcome, ...]:
        """Returns outcomes that the server holds for others, those that were offered longest ago.

        Raises:
            Unavailable: The server does not answer, or asks for an API key.
            VerificationFailed: The answer is none.
        """
        response = self._request("GET", "/v1/outcomes/held", params={"most": most})
        if response.status_code == httpx.codes.NOT_FOUND:  # a server of an older version holds none
            return ()
        said = self._read(response)
        try:
            return tuple(HeldOutcome.from_json(one) for one in said["held"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._failed(f"the outcomes that it holds cannot be read: {error}") from None

    def offer_outcomes(self, outcomes: Sequence[HeldOutcome]) -> tuple[frozenset[str], frozenset[str]]:
        """Tells outcomes that another server was told first; returns the predictions that are unknown and unanswered.

        Raises:
            Unavailable: The server does not answer, or asks for an API key of the scope predict.
            VerificationFailed: The answer is none.
        """
        body = [one.to_json() for one in outcomes]
        said = self._read(self._request("POST", "/v1/outcomes", params={"carried": "true"}, json=body))
        try:
            return frozenset(map(str, said["unknown"])), frozenset(map(str, said["unanswered"]))
        except (KeyError, TypeError) as error:
            raise self._failed(f"what it says to outcomes cannot be read: {error}") from None

    def settle_outcomes(self, settled: Settled) -> None:
        """Tells what became of outcomes that the server holds.

        Raises:
            Unavailable: The server does not answer, or asks for an API key of the scope predict.
            VerificationFailed: The answer is none.
        """
        body = {"carried": _named(settled.carried), "unknown": _named(settled.unknown)}
        self._read(self._request("POST", "/v1/outcomes/held", json=body))

    def push_certificate(self, model: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """Returns status and content of the server's answer to a pushed move; empty content where it is no object.

        Raises:
            Unavailable: The server does not answer.
        """
        response = self._request("POST", f"/v1/models/{quote(model, safe='')}/certificate", json=body)
        try:
            said = response.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            said = None
        return response.status_code, said if isinstance(said, dict) else {}

    def _request(self, method: str, path: str, **given: Any) -> httpx.Response:
        with _translated(self.base_url):
            return self._client.request(method, path, **given)

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            value = response.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            value = None
        detail = value.get("detail") if isinstance(value, dict) else None
        if response.status_code in _REFUSED:
            raise Unavailable(
                f"{self.base_url} {_REFUSED[response.status_code]}: {detail or f'status {response.status_code}'}",
                remedy="make one with `release api-key create NAME --scope predict --scope read`, then give it in "
                "RELEASE_SERVING_API_KEY",
            )
        if response.status_code in _LATER:
            raise Unavailable(
                f"{self.base_url}: {detail or 'not ready'}",
                remedy=f"look at {self.base_url}/status for the reason, then try again",
            )
        if not isinstance(value, dict):
            raise self._failed(f"status {response.status_code}, and the answer is no JSON object")
        if response.is_error:
            raise self._failed(f"status {response.status_code}: {detail or value}")
        return value

    def _failed(self, problem: str) -> VerificationFailed:
        return VerificationFailed(
            f"{self.base_url}: {problem}", remedy=f"look at {self.base_url}/status and at the server's log"
        )


def await_version(
    client: ServingClient,
    model: str,
    version: str,
    *,
    within_s: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Returns after how many seconds a server has a version live.

    Args:
        client: The server.
        model: The model's name.
        version: The version that is to be live.
        within_s: Seconds to wait at most; at least one look is taken.
        now: A clock in seconds that never goes back.
        sleep: Waits some seconds.

    Raises:
        Unavailable: The version did not go live in time. The message has the server's own reason.
    """
    begun = now()
    while True:
        live, reason = _look(client, model)
        if live == version:
            return now() - begun
        if now() - begun >= within_s:
            raise Unavailable(
                f"{client.base_url}: {model} version {version} is not live after {within_s:g} s, "
                f"but {live or 'none'}{f': {reason}' if reason else ''}",
                remedy=f"look at {client.base_url}/status for the reason",
            )
        sleep(0.1)


def _look(client: ServingClient, model: str) -> tuple[str | None, str | None]:
    """Returns the live version, and why it is not another."""
    try:
        entry = client.status().get("models", {}).get(model) or {}
    except Unavailable as error:
        return None, error.problem
    return entry.get("version"), (entry.get("refusal") or {}).get("reason")


def _given(of: Mapping[str, Any]) -> Given:
    return Given(route=Route(of["route"]), version=of["version"], weight=float(of["weight"]))


def _named(outcomes: Sequence[HeldOutcome]) -> list[dict[str, str]]:
    return [{"prediction_id": one.prediction_id, "name": one.name} for one in outcomes]


def _shown(api_key: str) -> dict[str, str]:
    """Returns the header that shows an API key."""
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise Unavailable(
            "what was given as the API key of the servers is none: it holds blanks, line ends or letters beyond ASCII",
            remedy="give the whole line that `release api-key create` printed, in RELEASE_SERVING_API_KEY",
        )
    return {"authorization": f"Bearer {api_key}"}


@contextmanager
def _translated(base_url: str) -> Iterator[None]:
    """Turns every error of httpx into ours."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise Unavailable(
            f"'{base_url}' is not the address of a server: {error}", remedy="give one such as http://127.0.0.1:8000"
        ) from error
    except (httpx.TimeoutException, TimeoutError) as error:
        raise Unavailable(
            f"{base_url} does not answer in time ({type(error).__name__})",
            remedy=f"see whether the server is overloaded: {base_url}/metrics",
        ) from error
    except (httpx.HTTPError, httpx.StreamError, httpx.CookieConflict) as error:
        raise Unavailable(
            f"{base_url} cannot be reached: {error or type(error).__name__}",
            remedy="start it with `make serve`, or give the right address with --url",
        ) from error
