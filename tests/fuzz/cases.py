"""One request after the other, each made from its number alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from release_platform.domain.features import Input
from tests.fuzz.heads import broken_text, head_of, request_text
from tests.fuzz.json_text import written
from tests.fuzz.mutations import CHANGES, KEEP_THE_SHAPE, Blame, spoil_text
from tests.fuzz.protocols import PROTOCOLS, Draft, Protocol, table_of

VERSION = "7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request, and what is known of it.

    Attributes:
        text: Its bytes.
        protocol: Its protocol.
        model: Which model it asks.
        body: Its body.
        json_length: The header that says how long the JSON in the body is.
        sound: Whether it is HTTP.
        readable: Whether the head allows the body to be read.
        found: Whether its path is a route, and names a model and version that may answer.
        untouched: Whether nothing was done to it.
        blame: What a refusal must name, if it was changed in one value.
    """

    text: bytes
    protocol: str
    model: str
    body: bytes = b""
    json_length: bytes | None = None
    sound: bool = True
    readable: bool = True
    found: bool = True
    untouched: bool = False
    blame: Blame | None = None


def case_of(seed: int, number: int, models: Mapping[str, Sequence[Input]], templates: Sequence[str]) -> Case:
    """Returns the case of a number.

    Args:
        seed: With another seed all cases are others.
        number: Which case.
        models: What each model takes.
        templates: The paths that the server's OpenAPI schema has for POST.
    """
    rng = Random(f"{seed}:{number}")
    spoken = [one for one in PROTOCOLS.values() if one.paths(templates, "m", VERSION)]
    protocol, model = rng.choice(spoken), rng.choice(sorted(models))
    draft = rng.choice(protocol.forms)(models[model], table_of(models[model], rng), rng)
    paths = protocol.paths(templates, model, VERSION)
    if rng.random() < 0.03:
        return _lost(protocol, model, paths, draft, rng)
    kind = rng.random()
    n_changes = 0 if kind < 0.1 else 1 if kind < 0.75 else rng.choice((2, 3))
    weights, changes = zip(*CHANGES, strict=True)
    blames = []
    for change in rng.choices(changes, weights, k=n_changes):
        blames.append(change(draft, models[model], rng))
        if change not in KEEP_THE_SHAPE:
            draft.forget_places()
    text = written(draft.tree, rng)
    length = None if draft.tail is None else b"%d" % len(text)
    body = text + (draft.tail or b"")
    if spoilt := rng.random() < 0.1:
        body = spoil_text(body, rng)
    if draft.tail is not None and rng.random() < 0.2:
        length = rng.choice([b"%d" % rng.randrange(len(body) + 9), b"", b"-1", b"1e3", b"9" * 40, b"\xff", None])
        spoilt = True
    if rng.random() < 0.02:
        broken = broken_text(rng.choice(paths).encode(), body, rng)
        return Case(text=broken, protocol=protocol.name, model=model, sound=False)
    head = head_of(rng)
    headers = head.headers + ([] if length is None else [(b"inference-header-content-length", length)])
    return Case(
        text=request_text(b"POST", rng.choice(paths).encode(), headers, body, rng),
        protocol=protocol.name,
        model=model,
        body=body,
        json_length=length,
        readable=head.readable,
        untouched=head.readable and n_changes == 0 and not spoilt,
        blame=blames[0] if n_changes == 1 and head.readable and not spoilt else None,
    )


def _lost(protocol: Protocol, model: str, paths: Sequence[str], draft: Draft, rng: Random) -> Case:
    path = rng.choice(paths)
    odd = rng.choice(
        [
            path.replace(model, "nobody"), path.replace(model, "%00"), path.replace(model, model + "%0A"), path + "/",
            path.replace("/", "//"), path.replace(model, "n" * 9000), path.replace(model, "%ff%fe"),
            path.replace(model, "..%2f" + model), path + "x", path.upper(), f"/v1/models/{model}/versions/8/predict",
            f"/v1/models/{model}/versions/%2007/predict", path.replace(model, ""), path.replace(model, "%F0%9F%98%80"),
        ]
    )  # fmt: skip
    method = rng.choice([b"POST", b"POST", b"POST", b"GET", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"BREW"])
    headers = [(b"content-type", b"application/json")]
    text = request_text(method, odd.encode(), headers, written(draft.tree, rng), rng)
    return Case(text=text, protocol=protocol.name, model=model, found=False, sound=method != b"BREW")
