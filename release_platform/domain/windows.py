"""Windows: what a route of serving did in one minute, in counts that add up.

Each replica makes one window for each model, version, route and minute, also for a minute without a request: a minute
without a window is a hole in the evidence, and the judge treats it as one. Everything is a count of whole things, so
`merge` is exactly associative and commutative, and no NaN can hide in it.

The unit is the request, because that is what is assigned to an arm at random: of a request with many rows only the
first row's prediction, pair and outcome count; rows of one request are not independent evidence. Measured numbers go
into fixed buckets. An outcome counts in the minute in which it arrives, so that a minute that was judged never changes,
and with its age, the minutes since the prediction: what is known sooner may be better or worse than what is known
later, so only outcomes that had equally long to come can be compared.

The standard library is all that this module needs: it is on serving's hot path.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import chain
from math import floor, isnan, log2
from typing import Any, TypeVar

from release_platform.domain.json_form import exactly

FORMAT = 2
_WITHOUT_AGES = 1
LABEL = "label"
"""The outcome that holds label quality: the bucket of 0 for a right label, of 1 for a wrong one, or of the absolute
error of a regression."""
NOT_FINITE = "not_finite"
"""The kind of error of an answer that is NaN or infinite."""
EVERY_SLICE = ""
"""The slice that every pair belongs to."""

PER_OCTAVE = 8
"""Buckets to a factor of two."""
OCTAVES = 40
"""How many factors of two the buckets reach, up and down from 1."""
_SHARES = 100
_ALIKE = 0.1
_Key = TypeVar("_Key", str, int)
_Outer = TypeVar("_Outer", str, int)
_Counts = dict[_Key, int]


class Route(StrEnum):
    """Where a request goes inside serving."""

    STABLE = "stable"
    CANARY = "canary"
    SHADOW = "shadow"


def number_bucket(value: float) -> int:
    """Returns the bucket of a number; buckets are ordered as the numbers are.

    Bucket 0 holds what is nearer to zero than 2**-40. The others are spaced evenly in the logarithm, 8 to a factor of
    two (9 % wide), with the number's sign; what is beyond 2**40, infinity too, is in the outermost one.

    Raises:
        ValueError: It is NaN.
    """
    if isnan(value):
        raise ValueError("NaN has no bucket; count it as an error")
    size = min(abs(value), 2.0**OCTAVES)
    if size < 2.0**-OCTAVES:
        return 0
    bucket = 1 + floor(PER_OCTAVE * (log2(size) + OCTAVES))
    return bucket if value > 0 else -bucket


def number_of(bucket: int) -> float:
    """Returns the end of a `number_bucket` that is nearer to zero."""
    size = 0.0 if bucket == 0 else 2.0 ** ((abs(bucket) - 1) / PER_OCTAVE - OCTAVES)
    return size if bucket >= 0 else -size


def share_bucket(value: float) -> int:
    """Returns the bucket of a probability, 0 to 99: hundredths, the last with 1 in it.

    Raises:
        ValueError: It is not from 0 to 1.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{value} is no probability")
    return min(int(value * _SHARES), _SHARES - 1)


def find_flip(stable: str | float, shadow: str | float) -> str | None:
    """Returns what becomes what, as windows count it, or None when two answers agree.

    Labels agree when they are the same. Numbers agree within a tenth of the larger size; a flip of them says only
    whether the shadow's is lower or higher. NaN agrees with nothing, and a label with no number.
    """
    if isinstance(stable, str) and isinstance(shadow, str):
        return None if stable == shadow else f"{stable} -> {shadow}"
    if isinstance(stable, str) or isinstance(shadow, str):
        return "another kind"
    if abs(stable - shadow) <= _ALIKE * max(abs(stable), abs(shadow)) or stable == shadow:
        return None
    return "lower" if shadow < stable else "higher" if shadow > stable else "not a number"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowKey:
    """What a window is of.

    Attributes:
        model: The model's name.
        version: The version that answered.
        route: The route.
        minute: Minutes since 1970 in UTC.
    """

    model: str
    version: str
    route: Route
    minute: int

    def __post_init__(self) -> None:
        if not self.model or not self.version or self.minute < 0:
            raise ValueError("a window is of a named model and version, in a minute from 1970 on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one route did in one minute. Counts are 1 and up; what did not happen is left out.

    Attributes:
        key: What the window is of.
        requests: Requests that were answered by the version, errors among them.
        errors: Requests that it failed, by kind. What the client did wrong is no error.
        latency: Requests by `number_bucket` of their milliseconds.
        predictions: Requests without an error, by the bucket of their first row's prediction: `number_bucket` of a
            regression's value, `share_bucket` of the positive class's probability, or the index of a class of several.
        outcomes: For each outcome's name, and age in minutes, requests by `number_bucket` of what arrived now.
        pairs: On the shadow route, requests that both versions answered, by slice (`column=value`, and `EVERY_SLICE`).
        flips: Of these, by slice, those whose answers differ, by what `find_flip` says.
    """

    key: WindowKey
    requests: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[int, int] = field(default_factory=dict)
    predictions: Mapping[int, int] = field(default_factory=dict)
    outcomes: Mapping[str, Mapping[int, Mapping[int, int]]] = field(default_factory=dict)
    pairs: Mapping[str, int] = field(default_factory=dict)
    flips: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        flat: list[Mapping[Any, int]] = [self.errors, self.latency, self.predictions, self.pairs]
        aged = [counts for by_age in self.outcomes.values() for counts in by_age.values()]
        counts = chain(*(c.values() for c in (*flat, *aged, *self.flips.values())))
        if self.requests < 0 or any(type(count) is not int or count < 1 for count in counts):
            raise ValueError("counts are whole numbers, 1 and up; what did not happen is left out")
        if not all((*self.outcomes.values(), *aged, *self.flips.values())):
            raise ValueError("an outcome, age or slice without a count is left out")
        if any(age < 0 for by_age in self.outcomes.values() for age in by_age):
            raise ValueError("an outcome is not older than 0 minutes")
        for name, counted in (("errors", self.errors), ("latency", self.latency), ("predictions", self.predictions)):
            if sum(counted.values()) > self.requests:
                raise ValueError(f"{name} counts more than the {self.requests} request(s) of the window")
        if any(count > self.requests for count in self.pairs.values()):
            raise ValueError("there are more pairs than requests")
        for name, differing in self.flips.items():
            if sum(differing.values()) > self.pairs.get(name, 0):
                raise ValueError(f"slice '{name}' has more flips than pairs")

    def merge(self, other: "Window") -> "Window":
        """Returns the window of both; raises ValueError when they are of different things."""
        if self.key != other.key:
            raise ValueError(f"windows of different things do not add up: {self.key} and {other.key}")
        return replace(
            self,
            requests=self.requests + other.requests,
            errors=_added(self.errors, other.errors),
            latency=_added(self.latency, other.latency),
            predictions=_added(self.predictions, other.predictions),
            outcomes={
                name: _added_each(self.outcomes.get(name, {}), other.outcomes.get(name, {}))
                for name in {**self.outcomes, **other.outcomes}
            },
            pairs=_added(self.pairs, other.pairs),
            flips=_added_each(self.flips, other.flips),
        )

    def outcomes_since(self, name: str, minute: int) -> _Counts[int]:
        """Returns what arrived of the predictions of a minute and later ones, by bucket."""
        counted: _Counts[int] = {}
        for age, counts in self.outcomes.get(name, {}).items():
            if self.key.minute - age >= minute:
                counted = _added(counted, counts)
        return counted

    def to_json(self) -> dict[str, Any]:
        """Returns the window as a JSON value."""
        return {
            "format": FORMAT,
            **asdict(self.key),
            "requests": self.requests,
            "errors": dict(self.errors),
            "latency": _texts(self.latency),
            "predictions": _texts(self.predictions),
            "outcomes": {
                name: {str(age): _texts(counts) for age, counts in by_age.items()}
                for name, by_age in self.outcomes.items()
            },
            "pairs": dict(self.pairs),
            "flips": {name: dict(counts) for name, counts in self.flips.items()},
        }

    @staticmethod
    def from_json(value: object) -> "Window":
        """Returns the window that `to_json` wrote; one of format 1, which knew no ages, without its outcomes.

        Raises:
            ValueError: It is no such window, or of another format; says which field is wrong.
        """
        of = exactly(value, "window", **_FIELDS)
        if of["format"] not in {FORMAT, _WITHOUT_AGES}:
            raise ValueError(f"a window of format {of['format']} cannot be read, only of format {FORMAT}")
        outcomes = of["outcomes"] if of["format"] == FORMAT else {}
        return Window(
            key=WindowKey(model=of["model"], version=of["version"], route=Route(of["route"]), minute=of["minute"]),
            requests=of["requests"],
            errors=of["errors"],
            latency=_buckets(of["latency"]),
            predictions=_buckets(of["predictions"]),
            outcomes={name: _by_age(counts, name) for name, counts in outcomes.items()},
            pairs=of["pairs"],
            flips={name: exactly(counts, f"flips of '{name}'") for name, counts in of["flips"].items()},
        )


def merged(windows: Iterable[Window]) -> tuple[Window, ...]:
    """Returns one window for each key, in order of model, version, route and minute."""
    found: dict[WindowKey, Window] = {}
    for window in windows:
        found[window.key] = found[window.key].merge(window) if window.key in found else window
    return tuple(sorted(found.values(), key=lambda w: (w.key.model, w.key.version, w.key.route, w.key.minute)))


_FIELDS: dict[str, type] = {
    "format": int,
    "model": str,
    "version": str,
    "route": str,
    "minute": int,
    "requests": int,
    "errors": dict,
    "latency": dict,
    "predictions": dict,
    "outcomes": dict,
    "pairs": dict,
    "flips": dict,
}


def _added(one: Mapping[_Key, int], other: Mapping[_Key, int]) -> _Counts[_Key]:
    both = dict(one)
    for key, count in other.items():
        both[key] = both.get(key, 0) + count
    return both


def _added_each(
    one: Mapping[_Outer, Mapping[_Key, int]], other: Mapping[_Outer, Mapping[_Key, int]]
) -> dict[_Outer, _Counts[_Key]]:
    return {name: _added(one.get(name, {}), other.get(name, {})) for name in {**one, **other}}


def _texts(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(bucket): count for bucket, count in counts.items()}


def _by_age(counts: object, name: str) -> dict[int, dict[int, int]]:
    by_age = exactly(counts, f"outcome '{name}'")
    if any(not age.isdecimal() or str(int(age)) != age for age in by_age):
        raise ValueError("ages are whole numbers of minutes, written plainly")
    return {int(age): _buckets(inner) for age, inner in by_age.items()}


def _buckets(counts: object) -> dict[int, int]:
    if not isinstance(counts, dict) or any(str(int(bucket)) != bucket for bucket in counts):
        raise ValueError("buckets are whole numbers, written plainly")
    return {int(bucket): count for bucket, count in counts.items()}
