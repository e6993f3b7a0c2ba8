"""The operators' API as a client sees it; its problem documents become the platform's own errors again."""

from collections.abc import Mapping
from typing import Any

import httpx

from release_platform.domain.errors import (
    DataError,
    IntegrityError,
    NotFound,
    Refused,
    ReleaseError,
    SpecError,
    Unavailable,
)

TIMEOUT_S = 60.0
ATTEMPTS = 3
_KINDS: dict[str, type[ReleaseError]] = {
    "not-found": NotFound,
    "invalid-input": DataError,
    "wrong-spec": SpecError,
    "unavailable": Unavailable,
    "too-many-requests": Unavailable,
    "damaged": IntegrityError,
    "internal-error": ReleaseError,
}
"""What each kind of problem is here; every other one is `Refused`."""


class OperatorsApi:
    """The API at an address.

    Every method raises `Refused` when the key or the state does not allow it, `NotFound` when there is no such thing,
    and `Unavailable` when the API does not answer, or says that what it needs does not.

    Args:
        url: Where it answers.
        key: The API key to show.
        transport: What carries the requests; None for the network.
    """

    def __init__(self, url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        headers = {"x-api-key": key}
        try:
            self._client = httpx.Client(base_url=self._url, headers=headers, timeout=TIMEOUT_S, transport=transport)
        except httpx.InvalidURL as error:
            raise SpecError(
                f"it is no address ({error})",
                remedy="write it like https://releases.example.org",
                field="RELEASE_API_URL",
            ) from None

    def get(self, path: str, **parameters: str) -> Any:
        """Returns what a path answers, as JSON."""
        return self._sent("GET", path, params=parameters)

    def post(self, path: str, body: dict[str, Any], *, once: str) -> Any:
        """Sends a JSON body and returns what is answered; sent again when no answer came, it has one effect.

        Args:
            path: Where to.
            body: What.
            once: The id of this act.
        """
        given = {name: value for name, value in body.items() if value is not None}
        return self._sent("POST", path, json=given, headers={"idempotency-key": once})

    def _sent(self, method: str, path: str, **what: Any) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                answer = self._client.request(method, path, **what)
                break
            except httpx.TransportError as error:
                if attempt == ATTEMPTS - 1:
                    raise Unavailable(
                        f"the operators' API at {self._url} does not answer ({type(error).__name__})",
                        remedy="check RELEASE_API_URL, and that `release api` runs there; then repeat the command",
                    ) from error
        if answer.is_success:
            return answer.json()
        raise self._failure(answer)

    def _failure(self, answer: httpx.Response) -> ReleaseError:
        try:
            return error_of(answer.json())
        except (ValueError, KeyError, TypeError):
            return Unavailable(
                f"{self._url} answered {answer.status_code}, and not as the operators' API does",
                remedy="check RELEASE_API_URL: it is the address of `release api`",
            )


def error_of(document: Mapping[str, Any]) -> ReleaseError:
    """Returns the error that a problem document tells of.

    Raises:
        KeyError: It is no such document; so do ValueError and TypeError.
    """
    kind, problem, remedy = (str(document[name]) for name in ("type", "detail", "remedy"))
    return _KINDS.get(kind.rpartition(":")[2], Refused)(problem, remedy=remedy)
