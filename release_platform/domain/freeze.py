"""Freeze windows: times in which nothing goes to Production.

A window is absolute (two moments) or weekly (days and wall-clock times of a time zone). Its beginning belongs to it,
its end does not. Where clocks are changed, a window is never shorter than either reading of its times: a time that
comes twice begins a window the first time and ends it the second time; a time that is skipped stands for the jump.
"""

import difflib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

CHAINED_WINDOWS = 64
_DAY = timedelta(days=1)


class Weekday(StrEnum):
    """The days of a week, in order."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


def yaml_key(name: str) -> str:
    """Returns the YAML's key of a field: `from` is a word of Python, so that field is `from_`."""
    return name.rstrip("_")


def moment_text(moment: datetime) -> str:
    """Returns a moment as people read it, to the second, with its offset from UTC."""
    return moment.isoformat(sep=" ", timespec="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeWindow:
    """A time in which nothing is promoted.

    Attributes:
        from_: The beginning, included (`from` in the YAML): a moment with its zone, or with `days` a time `HH:MM`.
        until: The end, not included, written like `from_`. A time at or before `from_` is one of the next day.
        days: The days on which a weekly window begins; None for an absolute one.
        timezone: IANA name of the zone of a weekly window's times; None for an absolute one.
        reason: Why; shown to whoever waits.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "alias_generator": yaml_key,
        "serialize_by_alias": True,
    }
    from_: str
    until: str
    reason: str
    days: tuple[Weekday, ...] | None = None
    timezone: str | None = None

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("a freeze window needs a reason: it is shown to whoever waits")
        if self.days is None:
            self._check_absolute()
        else:
            self._check_weekly(self.days)

    def _check_absolute(self) -> None:
        if self.timezone is not None:
            raise ValueError("`timezone` is for weekly windows, which have `days`; a moment carries its own offset")
        if _moment(self.until) <= _moment(self.from_):
            raise ValueError(f"until {self.until} is not after from {self.from_}")

    def _check_weekly(self, days: tuple[Weekday, ...]) -> None:
        if not days:
            raise ValueError("`days` is empty; name at least one of mon, tue, wed, thu, fri, sat, sun")
        if len(set(days)) != len(days):
            raise ValueError(f"`days` names a day twice: {', '.join(days)}")
        if self.timezone is None:
            raise ValueError("a weekly window needs a `timezone`, such as Europe/Berlin")
        _zone(self.timezone)
        _time(self.from_), _time(self.until)

    def find_end(self, now: datetime) -> datetime | None:
        """Returns when the window that holds at this moment ends, in UTC; None when it does not hold."""
        return next((end for start, end in self.spans(now, now) if start <= now.astimezone(UTC) < end), None)

    def spans(self, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yields when the window begins and ends, in UTC: all that lies between two moments, and maybe more."""
        if self.days is None:
            yield _moment(self.from_), _moment(self.until)
            return
        assert self.timezone is not None
        zone = _zone(self.timezone)
        starts, ends = _time(self.from_), _time(self.until)
        day, last = since.astimezone(zone).date() - _DAY, until.astimezone(zone).date()
        while day <= last:
            if tuple(Weekday)[day.weekday()] in self.days:
                last_day = day if ends > starts else day + _DAY
                yield _first(day, starts, zone), _last(last_day, ends, zone)
            day += _DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """What holds at a moment: why, and until when (UTC); `until` is None when windows follow each other without end."""

    reasons: tuple[str, ...]
    until: datetime | None

    @property
    def said(self) -> str:
        """The sentence that an operator reads."""
        end = "without an end" if self.until is None else f"until {moment_text(self.until)}"
        return f"promotions are frozen {end}: {'; '.join(self.reasons)}"


def find_freeze(windows: Sequence[FreezeWindow], now: datetime) -> Freeze | None:
    """Returns the freeze that holds at this moment, or None.

    Windows that overlap or follow each other without a gap are one freeze: `until` is when promotions may go on.
    """
    reasons = tuple(dict.fromkeys(window.reason for window in windows if window.find_end(now) is not None))
    if not reasons:
        return None
    until = now
    for _ in range(CHAINED_WINDOWS):
        ends = [end for window in windows if (end := window.find_end(until)) is not None]
        if not ends:
            return Freeze(reasons=reasons, until=until)
        until = max(ends)
    return Freeze(reasons=reasons, until=None)


def frozen_s(windows: Sequence[FreezeWindow], since: datetime, until: datetime) -> float:
    """Returns for how many seconds between two moments a freeze held."""
    seconds, reached = 0.0, since
    for start, end in sorted(span for window in windows for span in window.spans(since, until)):
        start, end = max(start, reached), min(end, until)
        if end > start:
            seconds, reached = seconds + (end - start).total_seconds(), end
    return seconds


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"'{text}' is not a moment like 2026-12-20T00:00:00Z; a weekly window has times, and needs `days`"
        ) from None
    if moment.tzinfo is None:
        raise ValueError(f"the moment '{text}' has no zone; end it like 2026-12-20T00:00:00Z or ...T00:00:00+01:00")
    return moment.astimezone(UTC)


def _time(text: str) -> time:
    try:
        return datetime.strptime(text, "%H:%M").time()
    except ValueError:
        raise ValueError(f"'{text}' is not a time like \"22:00\", from 00:00 to 23:59") from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones, such as Europe
        near = difflib.get_close_matches(name, available_timezones(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "write an IANA name such as Europe/Berlin or UTC"
        raise ValueError(f"there is no time zone '{name}'; {hint}") from None


def _first(day: date, at: time, zone: tzinfo) -> datetime:
    return _instant(datetime.combine(day, at, tzinfo=zone))


def _last(day: date, at: time, zone: tzinfo) -> datetime:
    return _instant(datetime.combine(day, at, tzinfo=zone).replace(fold=1))


def _instant(wall: datetime) -> datetime:
    """Returns the moment of a wall-clock time; for one that is skipped, the moment at which the clock jumps over it.

    It is in UTC: two moments of one zone compare by their wall clocks, which is wrong where clocks are changed.
    """
    moment = wall.astimezone(UTC)
    if moment.astimezone(wall.tzinfo).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return moment
    before, after = (int(wall.replace(fold=fold).timestamp()) for fold in (1, 0))  # the jump is between these
    new_offset = wall.replace(fold=1).utcoffset()

    def jumped(second: int) -> bool:
        return datetime.fromtimestamp(second, wall.tzinfo).utcoffset() == new_offset

    return datetime.fromtimestamp(bisect_left(range(before, after), True, key=jumped) + before, UTC)
