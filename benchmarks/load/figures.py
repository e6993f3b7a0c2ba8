"""Medians of what was measured, ratios, and whether the aims are met."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.load.wrk import Load

SETTINGS = {
    "1 row, 1 connection": ("row", 1),
    "1 row, 16 connections": ("row", 16),
    "1 row, 64 connections": ("row", 64),
    "1,000 rows as JSON, 4 connections": ("json", 4),
    "1,000 rows as binary, 4 connections": ("binary", 4),
}
"""Name of each setting, what is sent in it, and over how many connections."""

AT_1, AT_16, AT_64, AS_JSON, AS_BINARY = SETTINGS
OURS, FASTAPI, ASGI, MLFLOW = "ours", "no-op fastapi", "no-op asgi", "mlflow"
LIMITS = (FASTAPI, ASGI)
MOST_OF_A_CORE = 0.15
"""The share of a core that `wrk` may take from two workers for them to be judged as too slow."""
WORKERS_TIMES = 1.7
"""How many times the requests per second of one worker two are to answer."""
P99_TO_FASTAPI = 1.0
"""The most that p99 may be of that of FastAPI's no-op route."""


@dataclass(kw_only=True)
class Measured:
    """What was measured of one server with one model, round by round.

    Attributes:
        loads: By setting.
        first_answer_s: Seconds from the start of the process to the first right answer.
        empty_start_s: The same for a start without copies on disk; ours only.
        memory_bytes: Of all its processes after load.
        shares_counted_once: Whether pages that processes share are counted once in all of them.
        difference: The largest difference of a probability from the registered model's.
    """

    loads: dict[str, list[Load]] = field(default_factory=dict)
    first_answer_s: list[float] = field(default_factory=list)
    empty_start_s: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)
    shares_counted_once: bool = True
    difference: float = 0.0

    def at(self, setting: str) -> Load | None:
        """Returns the medians of a setting, and the sum of its errors; None where it was not measured."""
        found = self.loads.get(setting)
        if not found:
            return None
        return Load(
            per_second=median(load.per_second for load in found),
            p50_ms=median(load.p50_ms for load in found),
            p99_ms=median(load.p99_ms for load in found),
            n_errors=sum(load.n_errors for load in found),
            generator_share=median(load.generator_share for load in found),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoWorkers:
    """Two workers against one, both on the same two cores.

    Attributes:
        times: Requests per second of two, divided by those of one.
        generator_share: The share of a core that `wrk` used beside the two.
        apart: Whether it had a core of its own.
    """

    times: float
    generator_share: float
    apart: bool

    @property
    def judged(self) -> float | None:
        """What is judged; None where they may only miss the aim because `wrk` took so much from them."""
        is_clear = self.apart or self.generator_share <= MOST_OF_A_CORE or self.times >= WORKERS_TIMES
        return self.times if is_clear else None

    def __str__(self) -> str:
        core = "a core of its own" if self.apart else "one of their cores"
        return f"{self.times:.2f}  (wrk used {self.generator_share:.0%} of {core})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One of the aims.

    Attributes:
        what: What is compared.
        found: The ratio that was found; None where a side was not measured.
        wanted: The ratio that is wanted.
        at_most: Whether it must be at most that, rather than at least.
    """

    what: str
    found: float | None
    wanted: float
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is met; None where it cannot be judged."""
        if self.found is None:
            return None
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted

    def __str__(self) -> str:
        verdict = {True: "met", False: "MISSED", None: "not judged"}[self.met]
        found = "-" if self.found is None else f"{self.found:.2f}"
        return f"  {verdict:<10}  {self.what:<62} {found:>8}  wanted: {'<=' if self.at_most else '>='} {self.wanted:g}"


def ratio(one: float | None, other: float | None) -> float | None:
    """Returns one divided by the other; None where either is missing or the other is 0."""
    return None if one is None or not other else one / other


def per_second(found: Mapping[str, Measured], server: str, setting: str) -> float | None:
    """Returns the requests per second of a server in a setting; None where it was not measured or had errors."""
    load = found[server].at(setting) if server in found else None
    return None if load is None or load.n_errors else load.per_second


def best_peer(found: Mapping[str, Measured], *settings: str) -> float | None:
    """Returns the most requests per second that any peer reached in any of these settings."""
    speeds = [per_second(found, server, setting) for server in peers(found) for setting in settings]
    return max((speed for speed in speeds if speed is not None), default=None)


def peers(found: Mapping[str, Measured]) -> list[str]:
    """Returns the names of the peers that were measured."""
    return [server for server in found if server != OURS and server not in LIMITS]


def aims(found: Mapping[str, Measured], *, workers: float | None = None, p99: float | None = None) -> list[Aim]:
    """Returns the aims, judged by what was measured of each server with one model.

    Args:
        found: By server.
        workers: Requests per second of two workers divided by those of one; None where it cannot be judged.
        p99: That of ours at 16 connections divided by that of FastAPI's no-op route, in turns; None likewise.
    """

    def to_best(setting: str, wanted: float, *beside: str) -> Aim:
        speed = ratio(per_second(found, OURS, setting), best_peer(found, setting, *beside))
        return Aim(what=f"requests/s, {setting}: ours / best peer", found=speed, wanted=wanted)

    def to_server(server: str, wanted: float) -> Aim:
        speed = ratio(per_second(found, OURS, AT_16), per_second(found, server, AT_16))
        return Aim(what=f"requests/s, {AT_16}: ours / {server}", found=speed, wanted=wanted)

    return [
        to_server(MLFLOW, 100),
        to_best(AT_16, 8),
        to_server(FASTAPI, 1.0),
        to_server(ASGI, 0.35),
        Aim(what=f"p99, {AT_16}, in turns: {OURS} / {FASTAPI}", found=p99, wanted=P99_TO_FASTAPI, at_most=True),
        to_best(AT_1, 8),
        to_best(AT_64, 8),
        to_best(AS_JSON, 2),
        to_best(AS_BINARY, 2.8, AS_JSON),
        _least(found, "memory_bytes", "memory: ours / leanest peer", 1.0),
        _least(found, "first_answer_s", "first right answer, restart: ours / fastest peer", 0.5),
        _least(found, "empty_start_s", "first right answer, no copy on disk: ours / fastest peer", 0.5),
        Aim(what="requests/s, two workers / one", found=workers, wanted=WORKERS_TIMES),
    ]


def _least(found: Mapping[str, Measured], ours: str, what: str, wanted: float) -> Aim:
    theirs = "memory_bytes" if ours == "memory_bytes" else "first_answer_s"
    least = min((value for peer in peers(found) if (value := _median(found[peer], theirs)) is not None), default=None)
    own = _median(found[OURS], ours) if OURS in found else None
    return Aim(what=what, found=ratio(own, least), wanted=wanted, at_most=True)


def _median(measured: Measured, name: str) -> float | None:
    values: Sequence[float] = getattr(measured, name)
    return median(values) if values else None


def tables(found: Mapping[str, Measured]) -> str:
    """Returns all figures as text: a table for each setting, then one of memory, start and differences."""
    lines = []
    for setting in SETTINGS:
        lines += [f"\n{setting:<36}  requests/s    p50 ms    p99 ms   ours / it"]
        own = per_second(found, OURS, setting)
        for server, measured in found.items():
            load = measured.at(setting)
            if load is not None:
                times = ratio(own, load.per_second)
                errors = f"   {load.n_errors} ERRORS" if load.n_errors else ""
                shown = "" if times is None else f"{times:.2f}"
                lines.append(
                    f"  {server:<34} {load.per_second:>11,.0f} {load.p50_ms:>9.2f} {load.p99_ms:>9.2f} "
                    f"{shown:>11}{errors}"
                )
    lines += [f"\n{'':<36}  memory MB   first answer s   largest difference"]
    for server, measured in found.items():
        memory, first, empty = (_median(measured, name) for name in ("memory_bytes", "first_answer_s", "empty_start_s"))
        if memory is None or first is None:
            continue
        mark = "" if measured.shares_counted_once else " (shared pages counted for each process)"
        note = "" if empty is None else f"   {empty:.2f} s without a copy on disk"
        lines.append(f"  {server:<34} {memory / 1e6:>10,.0f} {first:>16.2f} {measured.difference:>20.2g}{note}{mark}")
    return "\n".join(lines)
