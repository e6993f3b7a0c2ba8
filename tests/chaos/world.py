"""A platform in one process, whose operations can be interrupted by others or die at any call to the outside.

A process that waits while another works is a call inside a call: at the moment, the other operation runs whole, over
connections of its own. A process that dies is `Died`, which nothing in the platform catches.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.audit import observe, observe_store
from release_platform.domain.errors import Refused, ReleaseError
from release_platform.domain.gates import Verdict
from release_platform.domain.invariants import LINEAGE, violations
from release_platform.domain.observation import Observation
from release_platform.domain.policy import Hold, Ready, RequestState
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.ports import Registry
from release_platform.releases import Releases
from tests.chaos.boundaries import Boundaries
from tests.unit.test_policy import REGISTRATION, gate

MODEL = "cancer"
POLICY = PolicySpec(approvals=1, current_baseline=False)
UNFINISHED = {14, 16}
"""Invariants that hold once what was cut off was carried to its end: the aliases follow, requests end."""

TICKS = 2
"""A promotion may end the other requests for its version, which the sensor sees at its next look."""

Act = Callable[[Releases], object]


class Died(BaseException):
    """A process was killed here."""


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """What happens to an operation.

    Attributes:
        pause_at: The call before which another operation runs whole; None: none does.
        other: That operation.
        die_at: The call before which its process dies; None: it lives.
    """

    pause_at: int | None = None
    other: Act | None = None
    die_at: int | None = None


UNTOUCHED = Interruption()


@dataclass(frozen=True, kw_only=True)
class World:
    """A platform over one database and one registry, as any number of processes see it.

    Attributes:
        url: The release store.
        registry: The registry, with every version that is to be released.
        keys: The keys.
        failed: The versions whose gate did not pass.
    """

    url: str
    registry: Registry
    keys: KeyFolder
    failed: frozenset[str] = frozenset()

    @contextmanager
    def process(self, boundaries: Boundaries | None = None) -> Iterator[Releases]:
        """Yields the platform as a process of its own sees it."""
        with closing(ReleaseStore(self.url)) as store:
            if boundaries is None:
                yield Releases(store, self.registry, self.keys)
                return
            parts = {"store": store, "registry": self.registry, "keys": self.keys}
            watched: dict[str, Any] = {name: boundaries.watched(part, name) for name, part in parts.items()}
            yield Releases(**watched)

    def run(self, act: Act, interruption: Interruption = UNTOUCHED) -> str:
        """Runs an operation in a process of its own; returns how it ended."""

        def reached(number: int, _: str) -> None:
            if number == interruption.pause_at and interruption.other is not None:
                self.run(interruption.other)
            if number == interruption.die_at:
                raise Died

        try:
            with self.process(Boundaries(reached)) as releases:
                act(releases)
        except Died:
            return "died"
        except ReleaseError as error:
            return type(error).__name__
        return "done"

    def run_together(self, *acts: Act) -> list[str]:
        """Runs operations at the same time, each in a thread with connections of its own."""
        with ThreadPoolExecutor(len(acts)) as pool:
            return list(pool.map(self.run, acts))

    def calls(self, act: Act) -> tuple[str, ...]:
        """Runs an operation and returns the calls that it makes."""
        boundaries = Boundaries(lambda *_: None)
        with self.process(boundaries) as releases:
            act(releases)
        return tuple(boundaries.names)

    # Operations

    def stage(self, releases: Releases, version: str) -> None:
        """Registers and stages a version."""
        record = self.registry.get_version(MODEL, version)
        passed = gate(Verdict.FAILED if version in self.failed else Verdict.PASSED)
        registration = replace(
            REGISTRATION,
            model=MODEL,
            version=version,
            digest=record.digest,
            gates=(passed,),
            registered_at=datetime.now(UTC),
        )
        recorded = releases.record(record, registration, {"commit": "c"})
        releases.stage(recorded, actor="ada", reason="registered", key=f"sha256:{version}")

    # What must hold

    def wrong_now(self) -> list[str]:
        """Returns what is wrong of what must hold at every moment, whatever was cut off."""
        with closing(ReleaseStore(self.url)) as store:
            seen = Observation(model=MODEL, store=observe_store(store, MODEL))
        return [finding.sentence for finding in violations(seen) if finding.invariant not in UNFINISHED]

    def settle(self, *, undo: bool = True) -> tuple[list[str], list[str]]:
        """Lets the sensor work until nothing moves; returns what it called tampering, and what is wrong then."""
        with self.process() as releases:
            said = list(releases.projection.reconcile(MODEL, undo=undo))
            for _ in range(TICKS):
                tick(releases)
            seen = observe(releases, MODEL)
            found = [finding.sentence for finding in violations(seen) if finding.invariant != LINEAGE]
            found += [
                f"request {left.request_id} is open, and waits for nothing"
                for left in releases.store.requests(MODEL, RequestState.OPEN)
                if not isinstance(releases.decide(left, POLICY), Hold)
            ]
        return said, found


def request(releases: Releases, version: str, request_id: str) -> None:
    """Asks for a version."""
    releases.request(MODEL, version=version, actor="ada", reason="better", request_id=request_id)


def approve(releases: Releases, request_id: str) -> None:
    """Approves a request."""
    releases.approve(request_id, actor="grace", reason="read it", policy=POLICY)


def carry_out(releases: Releases, request_id: str) -> None:
    """Does what the job `promote` does."""
    releases.promote(request_id, POLICY)


def rollback(releases: Releases, request_id: str, to: str | None = None) -> None:
    """Brings a former version back."""
    releases.rollback(MODEL, to=to, actor="ada", reason="it hurts", request_id=request_id)


def reconcile(releases: Releases) -> None:
    """Does what the sensor does first."""
    releases.projection.reconcile(MODEL, undo=True)


def tick(releases: Releases) -> None:
    """Decides what is open, and carries out what is ready."""
    for found in releases.store.requests(MODEL, RequestState.OPEN):
        if isinstance(releases.decide(found, POLICY), Ready):
            with suppress(Refused):  # its conditions ceased to hold meanwhile; the next tick decides again
                releases.promote(found.request_id, POLICY)
