"""Which answers a shadow changes: in which slices, from what to what, and how often."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from release_platform.domain.windows import EVERY_SLICE, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFlips:
    """Which answers change in one slice of the shadow's pairs.

    Attributes:
        slice: `column=value`, or empty for all pairs.
        pairs: How many pairs.
        share: Share of them whose answers differ, 0 to 1.
        flips: What becomes what, `from -> to`, and how often; most frequent first.
    """

    slice: str
    pairs: int
    share: float
    flips: tuple[tuple[str, int], ...]


def flip_report(windows: Iterable[Window]) -> tuple[SliceFlips, ...]:
    """Returns what differs between stable and shadow: over all pairs first, then the slices that differ most."""
    pairs: Counter[str] = Counter()
    flips: dict[str, Counter[str]] = {}
    for window in windows:
        pairs.update(window.pairs)
        for name, counts in window.flips.items():
            flips.setdefault(name, Counter()).update(counts)
    found = [_slice_flips(name, n, flips.get(name, Counter())) for name, n in pairs.items()]
    return tuple(sorted(found, key=lambda s: (s.slice != EVERY_SLICE, -s.share, s.slice)))


def _slice_flips(name: str, n: int, flips: Counter[str]) -> SliceFlips:
    ordered = tuple(sorted(flips.items(), key=lambda item: (-item[1], item[0])))
    return SliceFlips(slice=name, pairs=n, share=flips.total() / n, flips=ordered)
