"""Asks an MLflow server over HTTP as MLflow's own client does, without importing it: credentials, TLS, retries, errors.

What the environment says counts as it does for MLflow: `MLFLOW_TRACKING_USERNAME` with `MLFLOW_TRACKING_PASSWORD` (or
`~/.mlflow/credentials`), else `MLFLOW_TRACKING_TOKEN`; `MLFLOW_TRACKING_INSECURE_TLS`,
`MLFLOW_TRACKING_SERVER_CERT_PATH` (or `REQUESTS_CA_BUNDLE`), `MLFLOW_TRACKING_CLIENT_CERT_PATH`; `MLFLOW_WORKSPACE`.
Credentials in the address come first, and are in no message.
"""

import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from release_platform.adapters.loopback import is_loopback
from release_platform.adapters.mlflow_client import refusal_of
from release_platform.domain.errors import Unavailable

MAXIMUM_BYTES = 64 * 1024**2
"""Of an answer that is not a file."""
TIMEOUT = httpx.Timeout(15.0, connect=2.0)
ANSWER_WITHIN_S = 30.0
"""Seconds that an answer which is not a file may take until it is whole, however its bytes come."""
FILE_WITHIN_S = 600.0
"""Likewise for a file."""
_RETRY_AFTER_S = (0.1, 0.5)
_PASSING_STATUS = {httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT}
_PASSING_ERRORS = (httpx.ConnectTimeout, httpx.NetworkError, httpx.RemoteProtocolError)

Wire = TypeVar("Wire", bound=BaseModel)


class MlflowError(BaseModel):
    """What MLflow answers when it refuses."""

    error_code: str
    message: str = ""


class MlflowHttp:
    """An MLflow server. Safe to use from several threads.

    Args:
        tracking_uri: Its address, with or without credentials.

    Raises:
        Unavailable: That is no address, or the certificates of the environment cannot be read.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.address = re.sub(r"//.*@", "//", tracking_uri)
        with self._translated():
            url = httpx.URL(tracking_uri)
            self.netloc = url.netloc.decode()
            self._client = httpx.Client(
                base_url=url.copy_with(username=None, password=None),
                auth=httpx.BasicAuth(url.username, url.password) if url.userinfo else _credentials(),
                headers=_headers(with_token=not url.userinfo),
                verify=_tls(),
                timeout=TIMEOUT,
                limits=httpx.Limits(
                    max_keepalive_connections=0
                ),  # looks are seconds apart: nothing to keep, or to close
                trust_env=not is_loopback(url.host),
                follow_redirects=True,
                max_redirects=3,
            )

    def read(self, path: str, kind: type[Wire], params: Mapping[str, str | int]) -> Wire:
        """Returns the answer to a GET.

        Args:
            path: The path below the address.
            kind: What the answer is.
            params: The query.

        Raises:
            NotFound: MLflow has no such thing.
            Refused: MLflow refuses.
            Unavailable: It does not answer, or its answer is none of MLflow's.
        """
        with self._translated(), closing(self._open(path, params)) as response:
            body = _bounded(response)
        if response.is_error:
            self._refuse(response, body)
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            raise self._unavailable(f"its answer to {path} is none of MLflow's ({error.errors()[0]['msg']})") from None

    def download(self, path: str, target: Path, *, most_bytes: int) -> int | None:
        """Writes what lies at a path into a file; returns its size in bytes, None when nothing lies there.

        Reading ends when there are more bytes than `most_bytes`; those are not written, and the size that is returned
        is then only known to be larger.

        Raises:
            Unavailable: The server does not answer, or the answer breaks off.
            OSError: The file cannot be written.
        """
        with self._translated(), closing(self._open(path, {})) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                return None
            if response.is_error:
                self._refuse(response, _bounded(response))
            n_bytes = 0
            with target.open("wb") as file:
                for chunk in _chunks(response, FILE_WITHIN_S):
                    n_bytes += len(chunk)
                    if n_bytes > most_bytes:
                        break
                    file.write(chunk)
            return n_bytes

    def _open(self, path: str, params: Mapping[str, str | int]) -> httpx.Response:
        """Returns an answer whose body is still to be read; what may pass is tried again."""
        request = self._client.build_request("GET", path, params=params)
        for wait_s in _RETRY_AFTER_S:
            try:
                response = self._client.send(request, stream=True)
            except _PASSING_ERRORS:
                pass
            else:
                if response.status_code not in _PASSING_STATUS:
                    return response
                response.close()
            time.sleep(wait_s)
        return self._client.send(request, stream=True)

    def _refuse(self, response: httpx.Response, body: bytes) -> None:
        try:
            said = MlflowError.model_validate_json(body)
        except ValidationError:
            first = body[:300].decode(errors="replace").partition("\n")[0]
            raise self._unavailable(f"status {response.status_code}: {first}") from None
        raise refusal_of(self.address, said.error_code, said.message)

    def _unavailable(self, problem: str) -> Unavailable:
        return Unavailable(
            f"MLflow ({self.address}) does not answer: {problem}",
            remedy="check that it runs at this address, and the credentials, then try again",
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns every error of httpx into ours; a ValueError is an address or a token that no header can hold."""
        try:
            yield
        except httpx.LocalProtocolError:  # its text holds the header that is wrong, which may be a secret
            raise self._unavailable("what the environment says can be sent in no request") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict, ValueError) as error:
            raise self._unavailable(f"{type(error).__name__}: {error}") from error


def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    for chunk in _chunks(response, ANSWER_WITHIN_S):
        body += chunk
        if len(body) > MAXIMUM_BYTES:
            raise ValueError(f"more than {MAXIMUM_BYTES:,} bytes")
    return bytes(body)


def _chunks(response: httpx.Response, within_s: float) -> Iterator[bytes]:
    """Yields a body as its parts come: a server that lets it drip must not hold up whoever waits for ever."""
    end = time.monotonic() + within_s
    for chunk in response.iter_bytes():
        if time.monotonic() > end:
            raise httpx.ReadTimeout(f"the answer was not whole within {within_s:g} s", request=response.request)
        yield chunk


def _credentials() -> httpx.BasicAuth | None:
    file = ConfigParser(interpolation=None)
    file.read(Path("~/.mlflow/credentials").expanduser())
    kept = file["mlflow"] if file.has_section("mlflow") else {}
    username, password = (
        os.environ.get(name) or kept.get(name.lower())
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    )
    return httpx.BasicAuth(username, password) if username and password else None


def _headers(*, with_token: bool) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "model-release-platform"}
    if workspace := _header_value("MLFLOW_WORKSPACE"):
        headers["X-MLFLOW-WORKSPACE"] = workspace
    if with_token and (token := _header_value("MLFLOW_TRACKING_TOKEN")):
        headers["Authorization"] = f"Bearer {token}"  # basic credentials, where there are any, take its place
    return headers


def _header_value(variable: str) -> str:
    """Returns what a variable says, without the white space around it; that may be a secret, so no error says it."""
    value = os.environ.get(variable, "").strip()
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{variable} holds characters that no header can")
    return value


def _tls() -> ssl.SSLContext:
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"true", "1"}
    authorities = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    certificate = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    if insecure and authorities:
        raise ValueError("MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH exclude each other")
    if not insecure:
        authorities = authorities or os.environ.get("REQUESTS_CA_BUNDLE")
    try:
        if authorities:
            is_folder = Path(authorities).is_dir()
            context = ssl.create_default_context(
                cafile=None if is_folder else authorities, capath=authorities if is_folder else None
            )
        else:
            context = httpx.create_ssl_context(verify=not insecure)
        if certificate:
            context.load_cert_chain(certificate)
    except OSError as error:
        raise ValueError(f"the certificates that the environment names cannot be read: {error}") from error
    return context
