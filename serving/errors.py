"""Every error that a client can be given, as a problem document (RFC 9457).

```
Problem                        status
├── RequestProblem             4xx  the request is at fault
│   ├── InvalidHttp            400  not HTTP/1.1
│   ├── HeadTimeout            408  the head did not arrive in time
│   ├── HeadTooLarge           431
│   ├── MalformedBody          400  not JSON (CSV, Arrow), not UTF-8, nested too deep
│   ├── DuplicateKey           400  a key stands twice in one object
│   ├── ClientGone             400  the connection ended before the body did
│   ├── Unauthenticated        401  no API key, or none that is good
│   ├── Forbidden              403  the API key is not for this
│   ├── BodyTimeout            408  the body did not arrive in time
│   ├── BodyTooLarge           413
│   ├── WrongMediaType         415
│   ├── InvalidInput           422  a field or a value is not what the model takes
│   ├── InvalidPush            422  not a certificate with signature and manifest
│   ├── UnprovenMove           403  what was pushed is not signed by a trusted key, or of something else
│   ├── StaleMove              409  a later move was accepted already
│   ├── UnknownModel           404
│   ├── NotOffered             404  a call of a protocol that this server does not offer
│   └── UnknownVersion         404  the version neither is in Production nor was so before
├── NotNow                     503  come again later
│   ├── ModelNotLoaded              ... no verified version is loaded
│   ├── NoCopy                      ... what was pushed is authorised, but its files are not to be had
│   ├── TooManyConnections          ... too many connections are open
│   ├── Overloaded                  ... too many requests wait already
│   ├── DeadlinePassed              ... it waited too long for its turn
│   ├── TooManyRequests        429  ... too many came with this API key
│   └── Stopping                    ... the server ends, and the request took too long
└── ModelFailed                500  the model is at fault; counted
    ├── PredictionFailed            ... it raised an error
    └── NonFinitePrediction         ... it answered NaN or an infinity
```
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import orjson
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
_URN = "urn:model-release:problem:"
_LONGEST_TEXT = 500
_LOG = logging.getLogger(__name__)


class Problem(Exception):
    """An answer that is not the one that was asked for.

    Args:
        detail: What is wrong with this request, and what to send instead.
        field: The input or member that is at fault, where there is one.
        row: 0-based row of the request that is at fault, where there is one.
        caller_id: Whose API key is at fault, where it is known; for logs, not for the answer.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, field: str | None = None, row: int | None = None, caller_id: str = "") -> None:
        super().__init__(detail)
        self.caller_id = caller_id
        self.detail = detail
        self.field = field
        self.row = row

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the answer."""
        return {}


class RequestProblem(Problem):
    """The request is at fault; sending it again does not help."""

    status = 400
    slug = "bad-request"
    title = "Bad request"


class InvalidHttp(RequestProblem):
    """What was sent is not HTTP/1.1."""

    slug = "invalid-http"
    title = "The request is not valid HTTP"


class HeadTimeout(RequestProblem):
    """The head of the request did not arrive in time."""

    status = 408
    slug = "head-timeout"
    title = "The head of the request did not arrive in time"


class HeadTooLarge(RequestProblem):
    """The head of the request is larger than the server takes."""

    status = 431
    slug = "head-too-large"
    title = "The head of the request is too large"


class MalformedBody(RequestProblem):
    """The body is not what its content type says."""

    slug = "malformed-body"
    title = "The body cannot be read"


class DuplicateKey(RequestProblem):
    """A key stands twice in one JSON object, so it is open which value is meant."""

    slug = "duplicate-key"
    title = "A key is given twice"


class ClientGone(RequestProblem):
    """The connection ended before the body did; nobody reads this answer."""

    slug = "incomplete-body"
    title = "The body is incomplete"


class Unauthenticated(RequestProblem):
    """The request came without an API key, or with one that is not good. Which of its faults it has is not told.

    Args:
        detail: How to show one.
        login: Whether a browser may ask for it.
    """

    status = 401
    slug = "unauthenticated"
    title = "A valid API key is needed"

    def __init__(self, detail: str, *, login: bool = False) -> None:
        super().__init__(detail)
        self._login = login

    @property
    def headers(self) -> dict[str, str]:
        """How to show a key (RFC 6750, RFC 7617)."""
        return {"www-authenticate": 'Bearer, Basic realm="the API key is the password"' if self._login else "Bearer"}


class Forbidden(RequestProblem):
    """The API key is good, but not for this."""

    status = 403
    slug = "forbidden"
    title = "The API key is not for this"


class BodyTimeout(RequestProblem):
    """The body did not arrive in time."""

    status = 408
    slug = "body-timeout"
    title = "The body did not arrive in time"

    @property
    def headers(self) -> dict[str, str]:
        """The rest of the body is not read, so the connection cannot be used again."""
        return {"connection": "close"}


class BodyTooLarge(RequestProblem):
    """The body is larger than the server takes."""

    status = 413
    slug = "body-too-large"
    title = "The body is too large"

    @property
    def headers(self) -> dict[str, str]:
        """The rest of the body is not read, so the connection cannot be used again."""
        return {"connection": "close"}


class WrongMediaType(RequestProblem):
    """The body is of a type that this route does not read."""

    status = 415
    slug = "wrong-media-type"
    title = "The content type is not supported"


class InvalidInput(RequestProblem):
    """A field or a value is not what the model takes.

    Args:
        detail: What is wrong with this request, and what to send instead.
        field: The input or member that is at fault, where there is one.
        row: 0-based row of the request that is at fault, where there is one.
        missing: All inputs that are not there.
    """

    status = 422
    slug = "invalid-input"
    title = "The input is not what the model takes"

    def __init__(
        self, detail: str, *, field: str | None = None, row: int | None = None, missing: Sequence[str] = ()
    ) -> None:
        super().__init__(detail, field=field, row=row)
        self.missing = tuple(missing)


class InvalidPush(RequestProblem):
    """What was pushed is not a certificate with signature and manifest."""

    status = 422
    slug = "invalid-push"
    title = "The body is no certificate with signature and manifest"


class UnprovenMove(RequestProblem):
    """What was pushed does not prove that the version may stand in Production."""

    status = 403
    slug = "unproven-move"
    title = "The move is not proved"


class StaleMove(RequestProblem):
    """A later move was accepted already; the epoch never decreases."""

    status = 409
    slug = "stale-move"
    title = "A later move was accepted already"


class UnknownModel(RequestProblem):
    """There is no model of that name."""

    status = 404
    slug = "unknown-model"
    title = "There is no such model"


class UnknownVersion(RequestProblem):
    """The version neither is in Production nor was so before."""

    status = 404
    slug = "unknown-version"
    title = "That version may not answer"


class NotOffered(RequestProblem):
    """A protocol has such a call, but this server does not offer it."""

    status = 404
    slug = "not-offered"
    title = "The server does not offer this"


class NotNow(Problem):
    """The same request may succeed later."""

    status = 503
    slug = "not-now"
    title = "Not now"

    @property
    def headers(self) -> dict[str, str]:
        """When to come again, in seconds."""
        return {"retry-after": "2"}


class ModelNotLoaded(NotNow):
    """The model is known, but no verified version of it is loaded."""

    slug = "model-not-loaded"
    title = "No version of the model is loaded"


class NoCopy(NotNow):
    """What was pushed is authorised, but neither the disk nor the registry has its files as registered."""

    slug = "no-copy"
    title = "No verified copy of the version is here"


class TooManyConnections(NotNow):
    """As many connections are open as the server holds."""

    slug = "too-many-connections"
    title = "Too many connections are open"


class Overloaded(NotNow):
    """Too many requests wait already."""

    slug = "overloaded"
    title = "Too many requests are waiting"


class DeadlinePassed(NotNow):
    """The request waited too long for its turn, or for its result."""

    slug = "deadline-passed"
    title = "The request waited too long"


class TooManyRequests(NotNow):
    """Too many requests came with one API key.

    Args:
        detail: What the limit is.
        retry_after_s: Seconds until the next request is taken.
        caller_id: Whose key it is.
    """

    status = 429
    slug = "too-many-requests"
    title = "Too many requests came with this API key"

    def __init__(self, detail: str, *, retry_after_s: float, caller_id: str = "") -> None:
        super().__init__(detail, caller_id=caller_id)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """When to come again, in whole seconds, at least one."""
        return {"retry-after": str(max(1, math.ceil(self.retry_after_s)))}


class Stopping(NotNow):
    """The server ends, and the request was not answered within the time that was left."""

    slug = "stopping"
    title = "The server is stopping"


class ModelFailed(Problem):
    """The model gave no usable answer to an input that its contract allows."""

    slug = "model-failed"
    title = "The model failed"


class PredictionFailed(ModelFailed):
    """The model raised an error."""

    slug = "prediction-failed"
    title = "The model raised an error"


class NonFinitePrediction(ModelFailed):
    """The model answered NaN or an infinity."""

    slug = "non-finite-prediction"
    title = "The model's answer is not a finite number"


def unforeseen(request_id: str) -> Problem:
    """Returns the problem that a client is told when an error is raised that nobody foresaw, which is logged here."""
    _LOG.exception("request %s failed in an unforeseen way", request_id)
    return Problem(f"the server failed; its log has the cause under request id {request_id}")


def problem_response(
    problem: Problem, *, instance: str, request_id: str, more: Mapping[str, str] | None = None
) -> Response:
    """Returns the answer that tells a client of a problem, with more members than every problem has."""
    return document(
        status=problem.status,
        slug=problem.slug,
        title=problem.title,
        detail=problem.detail,
        instance=instance,
        request_id=request_id,
        extra={"field": problem.field, "row": problem.row, **(more or {})},
        headers=problem.headers,
    )


def document(
    *,
    status: int,
    slug: str,
    title: str,
    detail: str,
    instance: str,
    request_id: str,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Returns a problem document as a response. Members of `extra` that are None are left out.

    Below `/v2` it says `error`, too, which is what clients of the Open Inference Protocol look for.
    """
    members: dict[str, Any] = {"type": _URN + slug, "title": title, "status": status, "detail": detail}
    members |= {"instance": instance, "request_id": request_id}
    members |= {"error": detail} if instance.startswith("/v2") else {}
    members |= {name: value for name, value in (extra or {}).items() if value is not None}
    body = orjson.dumps({name: _printable(value) for name, value in members.items()})
    return Response(body, status, dict(headers or {}), MEDIA_TYPE)


def _printable(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    short = value if len(value) <= _LONGEST_TEXT else value[: _LONGEST_TEXT - 3] + "..."
    return short.encode("utf-8", "backslashreplace").decode()
