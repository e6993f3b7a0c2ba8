"""Which version a request goes to: a fixed share of the keys to the canary, all others to Production.

A key has a place from 0 to 1, the same in every process and for ever:

    place = (first 53 bits of SHA-256(model, a zero byte, key)) / 2**53

The canary answers the keys whose place is below its weight. So a key stays where it is, and raising the weight moves
keys to the canary and none back. Another model has other places, so that nobody is always among the first.
"""

import random
from hashlib import sha256

import orjson

from serving.models import Beside

KEY_HEADER = b"x-route-key"
"""The request header that holds the key."""
KEY_MEMBER = "route_key"
"""The member of a body that holds it, where the protocol has room for one."""

MARK = KEY_MEMBER.encode()
"""What a body holds that has a key in it; most have none, and are not looked at any further."""


def place_of(model: str, key: bytes) -> float:
    """Returns the place of a key among those of a model, from 0, included, to 1, excluded."""
    digest = sha256(b"%b\0%b" % (model.encode(), key)).digest()
    return (int.from_bytes(digest[:7], "big") >> 3) / 2**53


def takes(canary: Beside, key: bytes | None) -> bool:
    """Returns whether the canary answers a request with this key; one without a key is drawn by lot."""
    place = random.random() if key is None else place_of(canary.loaded.model, key)  # noqa: S311 - a lot, no secret
    return place < canary.weight


def key_in(text: bytes) -> bytes | None:
    """Returns the key that the JSON of our own protocol holds, or None; a text that is no JSON has no key."""
    if MARK not in text:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    key = value.get(KEY_MEMBER) if isinstance(value, dict) else None
    return key.encode() if isinstance(key, str) and key else None
