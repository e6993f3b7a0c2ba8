"""Talks to a server over HTTP, as any client would, and verifies that it answers as the registry's model does."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import numpy.typing as npt

from release_platform.adapters.loopback import is_loopback
from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.errors import Unavailable, VerificationFailed
from release_platform.domain.features import as_column
from release_platform.domain.prediction import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAnswer:
    """What a live server said of some rows.

    Attributes:
        predictions: As `Predictions.to_json` writes them.
        latency_ms: From sending the request to having the whole answer.
    """

    model: str
    version: str
    digest: str
    engine: str
    predictions: Mapping[str, Any]
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A live server answered the golden rows, as rows and as columns, exactly as the registry's own model does.

    Attributes:
        n_rows: How many golden rows were asked.
        largest_difference: Of any number in the answers: 0.0, as they are equal bit for bit.
        latency_ms: Of the slower one of the two requests.
    """

    n_rows: int
    largest_difference: float
    version: str
    digest: str
    engine: str
    latency_ms: float


class ServingClient:
    """One server.

    Args:
        base_url: Its address, e.g. `http://127.0.0.1:8000`.
        timeout_s: Seconds that each step of a request may take.
        connect_s: Seconds that connecting may take; None for `timeout_s`.
        transport: How requests travel; None for the network.
    """

    def __init__(
        self,
        base_url: str,
        timeout_s: float = 10.0,
        *,
        connect_s: float | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        with _translated(self.base_url):
            # A proxy of the environment cannot reach this machine's own addresses.
            trust_env = not is_loopback(httpx.URL(self.base_url).host)
            timeout = httpx.Timeout(timeout_s, connect=timeout_s if connect_s is None else connect_s)
            self._client = httpx.Client(
                base_url=self.base_url, timeout=timeout, trust_env=trust_env, transport=transport
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

    def predict(self, model: str, inputs: Mapping[str, Sequence[Any]], *, as_rows: bool = False) -> ServedAnswer:
        """Returns the live answer to some rows.

        Args:
            model: The model's name.
            inputs: JSON values of each input, by name, all of one length.
            as_rows: Whether they are sent as records instead of columns.

        Raises:
            Unavailable: The server does not answer, or has no version of the model loaded.
            VerificationFailed: It refused the rows, or its answer cannot be read.
        """
        body: dict[str, Any] = {"rows": _rows(inputs)} if as_rows else {"columns": dict(inputs)}
        begun = time.perf_counter()
        response = self._request("POST", f"/v1/models/{quote(model, safe='')}/predict", json=body)
        latency_ms = (time.perf_counter() - begun) * 1000
        answer = self._read(response)
        try:
            return ServedAnswer(
                **{name: str(answer[name]) for name in ("model", "version", "digest", "engine")},
                predictions={name: answer[name] for name in ("predictions", "probabilities") if name in answer},
                latency_ms=latency_ms,
            )
        except KeyError as error:
            raise self._failed(f"the answer has no {error}") from None

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
        if not isinstance(value, dict):
            raise self._failed(f"status {response.status_code}, and the answer is no JSON object")
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise Unavailable(
                f"{self.base_url}: {value.get('detail', 'not ready')}",
                remedy=f"look at {self.base_url}/status for the reason, then try again",
            )
        if response.is_error:
            raise self._failed(f"status {response.status_code}: {value.get('detail', value)}")
        return value

    def _failed(self, problem: str) -> VerificationFailed:
        return VerificationFailed(
            f"{self.base_url}: {problem}", remedy=f"look at {self.base_url}/status and at the server's log"
        )


def verify_live(client: ServingClient, package: ModelPackage, model: str, version: str) -> Verification:
    """Returns the proof that a server answers the golden rows exactly as the registry's own model does.

    Args:
        client: The server.
        package: The version, loaded from the registry.
        model: The model's name.
        version: The number of the version that must answer.

    Raises:
        Unavailable: The server does not answer, or has no version of the model loaded.
        VerificationFailed: Another version, digest or engine answered, or a number differs in any bit.
    """
    golden: Mapping[str, Sequence[Any]] = package.golden["inputs"]
    wanted = package.predict({column.name: as_column(column, golden[column.name]) for column in package.plan.inputs})
    answers = [client.predict(model, golden, as_rows=as_rows) for as_rows in (True, False)]
    for answer in answers:
        _check_identity(client, answer, package, model, version)
    largest = max(_difference(answer, wanted) for answer in answers)
    if not all(_equal(answer, wanted) for answer in answers):
        raise VerificationFailed(
            f"{client.base_url}: {model} version {version} answers otherwise than the registry's model: "
            f"the largest difference of a number is {largest:.3g}",
            remedy=f"restart that server; if it stays so, compare its libraries with `release lineage {model}`",
        )
    return Verification(
        n_rows=len(wanted.values),
        largest_difference=largest,
        version=version,
        digest=package.digest,
        engine=package.engine_name,
        latency_ms=max(answer.latency_ms for answer in answers),
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


def _check_identity(
    client: ServingClient, answer: ServedAnswer, package: ModelPackage, model: str, version: str
) -> None:
    wanted = {"model": model, "version": version, "digest": package.digest, "engine": package.engine_name}
    for name, value in wanted.items():
        found = getattr(answer, name)
        if found != value:
            raise VerificationFailed(
                f"{client.base_url}: the answer names {name} {found}, but it should be {value}",
                remedy=f"wait until {client.base_url}/status shows version {version}, or see there why it was refused",
            )


def _numbers(answer: ServedAnswer, wanted: Predictions) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    name = "predictions" if wanted.probabilities is None else "probabilities"
    expected = wanted.values if wanted.probabilities is None else wanted.probabilities
    try:
        found = np.array(answer.predictions.get(name), dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    return found, np.asarray(expected, dtype=np.float64)


def _equal(answer: ServedAnswer, wanted: Predictions) -> bool:
    found, expected = _numbers(answer, wanted)
    labels = answer.predictions.get("predictions") == wanted.values.tolist()
    return labels and found.shape == expected.shape and found.tobytes() == expected.tobytes()


def _difference(answer: ServedAnswer, wanted: Predictions) -> float:
    found, expected = _numbers(answer, wanted)
    if found.shape != expected.shape:
        return float("inf")
    return float(np.max(np.abs(found - expected), initial=0.0))


def _rows(inputs: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]


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
