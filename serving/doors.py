"""What a protocol is to this server: a way to read what is asked, and a way to write what is answered.

```
bytes --read--> Ask --engine--> Predictions --write--> Reply
```
Each protocol is a `Door`, pure and without state; `answering` does everything between, the same for all of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from release_platform.domain.features import Inputs
from release_platform.domain.prediction import Predictions
from serving.errors import Problem, WrongMediaType
from serving.limits import Limits
from serving.models import LoadedModel

JSON = b"application/json"

Headers = Iterable[tuple[bytes, bytes]]
"""The headers of a request as they came, lower-case names."""

Head = Mapping[bytes, bytes]
"""The headers of a request, by lower-case name; of several of one name the last."""


class Ask(NamedTuple):  # made for each request: a frozen dataclass takes twice as long to make
    """What a body asks.

    Attributes:
        inputs: The rows, as a plan takes them; at least one.
        options: What the protocol needs again when it answers, e.g. a request's own id.
    """

    inputs: Inputs
    options: Any = None


class Reply(NamedTuple):
    """An answer with status 200.

    Attributes:
        body: Its bytes.
        media_type: Its content type.
        headers: Further headers, lower-case names.
    """

    body: bytes
    media_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Sent(NamedTuple):
    """What goes out: status, headers, body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Door(Protocol):
    """One protocol.

    Attributes:
        media_types: The content types that it reads, lower case, without parameters; with an empty one, none need be
            given.
    """

    media_types: ClassVar[frozenset[bytes]]

    def is_ready(self, head: Head) -> bool:
        """Returns whether all that a request needs is loaded; where it is not, reading it takes long, this once."""

    def read(self, body: bytes, head: Head, loaded: LoadedModel, limits: Limits) -> Ask:
        """Returns what is asked.

        Raises:
            RequestProblem: It is not what the protocol allows, or not what the model takes. Names field and row.
        """

    def key_in(self, body: bytes, head: Head, limits: Limits) -> bytes | None:
        """Returns the key by which a request is routed (see `routing`), where its body holds one; raises nothing."""

    def write(self, ask: Ask, loaded: LoadedModel, predictions: Predictions, prediction_id: str) -> Reply:
        """Returns the answer."""

    def complain(self, problem: Problem) -> Mapping[str, str]:
        """Returns the members that clients of the protocol look for in an error, beside those of every problem."""


def media_type_of(head: Head) -> bytes:
    """Returns the content type of a request, lower case, without parameters; empty where none is given."""
    return (head.get(b"content-type") or b"").partition(b";")[0].strip().lower()


def check_media_type(head: Head, accepted: frozenset[bytes]) -> None:
    """Refuses a body of another type, another charset than UTF-8, or one that is compressed.

    Raises:
        WrongMediaType: It is one.
    """
    given = head.get(b"content-type") or b""
    media, _, parameters = given.partition(b";")
    if media not in accepted and media.strip().lower() not in accepted:
        wanted = " or ".join(sorted(name.decode() for name in accepted if name))
        raise WrongMediaType(f"the content type is '{_shown(media.strip())}'; send {wanted}")
    if parameters:
        _check_charset(parameters)
    encoding = head.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        raise WrongMediaType(f"the content encoding is '{_shown(encoding)}'; send the body as it is")


def _check_charset(parameters: bytes) -> None:
    for part in parameters.split(b";"):
        name, _, value = part.partition(b"=")
        charset = value.strip().strip(b'"').lower()
        if name.strip().lower() == b"charset" and charset not in {b"utf-8", b"utf8"}:
            raise WrongMediaType(f"the charset is '{_shown(charset)}'; send UTF-8")


def _shown(value: bytes) -> str:
    return value.decode("latin-1")[:100]
