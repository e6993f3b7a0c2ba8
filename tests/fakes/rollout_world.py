"""A model with a rollout to come: real store, real packages, a server that says what it counted, and a moved clock."""

import shutil
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.audit import observe
from release_platform.domain.invariants import LINEAGE, violations
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Share
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.rollout import Order, Rollout, RolloutState
from release_platform.domain.spec import ModelSpec
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, RolloutSpec, ShadowSpec, StepSpec, Strategy
from release_platform.domain.windows import EVERY_SLICE, Route, Window, WindowKey
from release_platform.releases import Releases
from release_platform.rollouts import Rollouts, Step
from release_platform.watch import Look, Watch
from tests.fakes.clock import FakeClock
from tests.fakes.registry import FakeRegistry
from tests.fakes.servers import FakeServers
from tests.unit.test_policy import REGISTRATION
from tests.unit.test_spec import spec

MODEL = "churn"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
URL = "http://one"
BOUNDS = {"minimum_s": 60, "maximum_s": 1800}
PLAN = RolloutSpec(
    strategy=Strategy.CANARY,
    shadow=ShadowSpec(share=0.5, minimum_pairs=100, **BOUNDS),
    canary=tuple(StepSpec(weight=weight, minimum_requests=100, **BOUNDS) for weight in (0.1, 0.5)),
    bake_s=120,
    gates=(LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.05), LiveGateSpec(metric=LiveMetric.DISAGREEMENT)),
)
SPEC: ModelSpec = replace(spec(), policy=PolicySpec(current_baseline=False), rollout=PLAN)


class Through:
    """A release store whose calls a test may come between."""

    def __init__(self, store: ReleaseStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class World:
    """A model with version 1 in Production and version 2 in Staging, one server, and a clock that a test moves."""

    def __init__(self, home: Path, registry: FakeRegistry, clock: FakeClock, servers: FakeServers) -> None:
        self.home, self.registry, self.clock, self.servers = home, registry, clock, servers
        self.store = ReleaseStore(f"sqlite:///{home / 'release.db'}", clock)
        self.keys = KeyFolder(home / "keys")
        self.spec = SPEC
        self.compose(self.store, registry, self.keys)

    @staticmethod
    def make(folders: dict[tuple[str, str], Path], home: Path) -> "World":
        """Returns a new one."""
        made = World(home, FakeRegistry(folders, signs=False), FakeClock(START), FakeServers(URL))
        made.release_first()
        return made

    def copy(self, home: Path) -> "World":
        """Returns one that stands as this one does, in a folder that is not there yet."""
        shutil.copytree(self.home, home)
        return World(home, deepcopy(self.registry), deepcopy(self.clock), deepcopy(self.servers))

    def compose(self, store: Any, registry: Any, keys: Any) -> None:
        """Puts the platform together from these parts."""
        self.releases = Releases(store, registry, keys, self.clock, servers=self.servers)
        self.rollouts = Rollouts(self.releases, self.servers, self.clock)
        self.watch = Watch(self.releases, self.rollouts, self.servers, self.clock)

    def through(self, store: "Through") -> Rollouts:
        """Returns what another process would act with, whose calls of the release store go through something."""
        releases = Releases(cast(ReleaseStore, store), self.registry, self.keys, self.clock, servers=self.servers)
        return Rollouts(releases, self.servers, self.clock)

    def release_first(self) -> None:
        for version in ("1", "2"):
            self.stage(version)
            if version == "1":
                self.ask(version)

    def stage(self, version: str) -> None:
        record = self.registry.get_version(MODEL, version)
        of = replace(REGISTRATION, model=MODEL, version=version, digest=record.digest, registered_at=self.clock.now())
        recorded = self.releases.record(record, of, {"commit": "c"})
        self.releases.stage(recorded, actor="ada", reason="gates passed", key=f"sha256:{version}")

    def ask(self, version: str, strategy: Strategy | None = None) -> LedgerRow | Rollout:
        """Asks for a version; with a strategy, that is the one of the model's YAML at this time."""
        spec = self.spec if strategy is None else self.spec_with(strategy)
        self.rollouts.request(spec, request_id=f"q{version}", version=version, actor="ada", reason="better")
        return self.rollouts.carry_out(f"q{version}", spec)

    def spec_with(self, strategy: Strategy) -> ModelSpec:
        """Returns the spec, with another strategy in its YAML."""
        return replace(self.spec, rollout=replace(self.spec.rollout, strategy=strategy))

    def step(self) -> Step | None:
        return self.rollouts.step(MODEL, self.spec)

    def serve_minutes(self, n: int, errors: int = 0) -> list[Look | None]:
        """Lets minutes pass in which Production gets requests, and the policy looks after each of them."""
        looks = []
        for _ in range(n):
            head, minute = self.store.head(MODEL), int(self.clock.now().timestamp() // 60)
            assert head.production is not None
            failed = {"timeout": errors} if errors else {}
            of = Window(key=key(head.production, Route.STABLE, minute), requests=100, errors=failed)
            self.servers.counted[URL].append(of)
            self.clock.pass_s(60)
            looks.append(self.watch.look(MODEL, self.spec))
        return looks

    def order(self, order: Order, actor: str = "grace", reason: str = "said so") -> Rollout:
        return self.rollouts.order(MODEL, order, actor=actor, reason=reason, policy=self.spec.policy)

    def pass_minutes(self, n: int, errors: int = 0, flips: int = 0, requests: int = 200) -> list[Step]:
        """Lets minutes pass in which every route that there is gets requests, and looks after each of them."""
        steps = []
        for _ in range(n):
            self.count(errors=errors, flips=flips, requests=requests)
            self.clock.pass_s(60)
            found = self.step()
            steps += [found] if found is not None else []
        return steps

    def count(self, errors: int = 0, flips: int = 0, requests: int = 200) -> None:
        head, minute = self.store.head(MODEL), int(self.clock.now().timestamp() // 60)
        for route, share in ((Route.CANARY, head.canary), (Route.SHADOW, head.shadow)):
            if share is not None:
                failed = {"timeout": errors} if errors else {}
                of: dict[str, Any] = {"requests": requests, "errors": failed}
                if route is Route.SHADOW:
                    of["pairs"] = {EVERY_SLICE: requests}
                    of["flips"] = {EVERY_SLICE: {"no -> yes": flips}} if flips else {}
                self.servers.counted[URL].append(Window(key=key(share.version, route, minute), **of))
        assert head.production is not None
        self.servers.counted[URL].append(Window(key=key(head.production, Route.STABLE, minute), requests=900))

    @property
    def stage_now(self) -> tuple[RolloutState, int]:
        rollout = self.rollouts.get(MODEL).rollout
        return rollout.state, rollout.stage

    @property
    def beside(self) -> tuple[Share | None, Share | None]:
        head = self.store.head(MODEL)
        return head.canary, head.shadow

    @property
    def moves(self) -> list[str]:
        rows = self.store.ledger(MODEL)[3:]
        return [f"{row.move} {row.version}" + (f" {row.weight:g}" if row.weight is not None else "") for row in rows]

    def wrong(self) -> list[str]:
        """Returns what is wrong once the sensor has looked."""
        said = list(self.releases.projection.reconcile(MODEL, undo=True))
        found = violations(observe(self.releases, MODEL))
        return said + [finding.sentence for finding in found if finding.invariant != LINEAGE]


def key(version: str, route: Route, minute: int) -> WindowKey:
    return WindowKey(model=MODEL, version=version, route=route, minute=minute)
