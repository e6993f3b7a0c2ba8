"""Every error that a caller can be given, as a problem document (RFC 9457) with what to do next."""

import math
from typing import Any

from starlette.responses import JSONResponse

from release_platform.domain.api_keys import without_keys
from release_platform.domain.errors import (
    DataError,
    IntegrityError,
    NotFound,
    Refused,
    ReleaseError,
    SpecError,
    StaleEpoch,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
_URN = "urn:model-release:problem:"
_LONGEST_TEXT = 2_000
_KINDS: tuple[tuple[type[ReleaseError], int, str, str], ...] = (  # the first that fits
    (NotFound, 404, "not-found", "There is no such model, version or request"),
    (StaleEpoch, 409, "stale-epoch", "Another transition was first"),
    (Refused, 409, "refused", "Not allowed now"),
    (DataError, 422, "invalid-input", "A value is not what is taken"),
    (SpecError, 503, "wrong-spec", "The model's YAML is wrong"),
    (Unavailable, 503, "unavailable", "An outside system does not answer"),
    (IntegrityError, 500, "damaged", "Something is not what was registered"),
    (ReleaseError, 500, "internal-error", "The platform failed"),
)


class Denied(Exception):
    """A request that is not let in.

    Args:
        status: 401, 403 or 429.
        detail: Why.
        remedy: What to do next.
        retry_after_s: Seconds until it would be, for 429.
    """

    def __init__(self, status: int, detail: str, *, remedy: str, retry_after_s: float = 0.0) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.remedy = remedy
        self.retry_after_s = retry_after_s

    def response(self, path: str, *, basic: bool) -> JSONResponse:
        """Returns the answer that says so; where `basic`, a browser then asks for name and key."""
        slug, title = {
            401: ("unauthenticated", "A valid API key is needed"),
            403: ("forbidden", "The API key is not for this"),
            429: ("too-many-requests", "Too many requests came with this API key"),
        }[self.status]
        headers = {}
        if self.status == 401:
            headers["www-authenticate"] = 'Basic realm="operators"' if basic else "Bearer"
        if self.status == 429:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        return problem(self.status, slug, title, self.detail, path, self.remedy, headers)


def problem_of(error: ReleaseError, path: str) -> JSONResponse:
    """Returns the answer that tells a caller of the platform's own error."""
    _, status, slug, title = next(kind for kind in _KINDS if isinstance(error, kind[0]))
    headers = {"retry-after": "2"} if status == 503 else {}
    return problem(status, slug, title, error.problem, path, error.remedy, headers)


def told(error: ReleaseError) -> dict[str, str]:
    """Returns what kind of error it is, what is wrong, and what to do next, by the names of a problem document."""
    slug = next(slug for kind, _, slug, _ in _KINDS if isinstance(error, kind))
    return {"type": _URN + slug, "detail": _printable(error.problem), "remedy": _printable(error.remedy)}


def problem(
    status: int, slug: str, title: str, detail: str, path: str, remedy: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Returns a problem document as a response."""
    members: dict[str, Any] = {"type": _URN + slug, "title": title, "status": status}
    members |= {"detail": _printable(detail), "instance": _printable(path), "remedy": _printable(remedy)}
    return JSONResponse(members, status, {"cache-control": "no-store", **(headers or {})}, MEDIA_TYPE)


def _printable(text: str) -> str:
    return without_keys(text)[:_LONGEST_TEXT].encode("utf-8", "backslashreplace").decode()
