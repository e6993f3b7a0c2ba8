"""A rollout over a real server under load: a good version gets all traffic, a bad one loses what it had.

Release store, packages, signatures, server and HTTP are real; the time of both is the test's, so that minutes pass.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from release_platform.adapters.servers import Servers
from release_platform.domain.ledger import standing_at
from release_platform.domain.rollout import RolloutState
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, StepSpec, Strategy
from serving.routing import place_of
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier, build_onnx_classifier
from tests.fakes.rollout_world import BOUNDS, MODEL, PLAN, SPEC, World
from tests.fakes.server import running, settings_for, until

WEIGHTS = (0.4, 0.7)
CANARY = replace(
    PLAN,
    strategy=Strategy.CANARY,
    canary=tuple(StepSpec(weight=weight, minimum_requests=20, **BOUNDS) for weight in WEIGHTS),
    bake_s=0,
    gates=(LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.1),),
)
N_KEYS = 50
ROW = dict.fromkeys(CANCER_INPUTS, 1.5)
LONGEST = 30
"""Minutes that a rollout of this test takes at most."""


@dataclass(frozen=True)
class Live:
    """A platform and a server that it talks to."""

    world: World
    client: httpx.Client

    def ask(self, key: str) -> httpx.Response:
        return self.client.post(f"/v1/models/{MODEL}/predict", json={"rows": [ROW]}, headers={"x-route-key": key})

    def minute(self) -> Counter[str]:
        """Lets a minute pass in which every key asks once; returns how many were answered by which version."""
        answers = [self.ask(f"customer-{n}") for n in range(N_KEYS)]
        assert {answer.status_code for answer in answers} == {200}, "a client was let down"
        self.client.get("/admin/windows").raise_for_status()  # counts what was put down, before the clock moves
        self.world.clock.pass_s(60)
        return Counter(answer.headers["x-model-version"] for answer in answers)

    def shows(self, version: str | None, weight: float | None = None) -> bool:
        """Whether the server has this version as its canary, with this weight."""
        routes = self.client.get("/status").json()["models"][MODEL].get("routes", {}).get("canary") or {}
        return (routes.get("version"), routes.get("weight")) == (version, weight)

    def until_over(self, look: Callable[[], object]) -> list[Counter[str]]:
        answered = []
        for _ in range(LONGEST):
            answered.append(self.minute())
            look()
            rollout = self.world.rollouts.get(MODEL).rollout
            share = self.world.store.head(MODEL).canary
            until(lambda share=share: self.shows(share.version, share.weight) if share else self.shows(None))
            if rollout.ended:
                return answered
        raise AssertionError(f"it has not ended: {rollout.said}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    good = {(MODEL, n): build_linear_classifier(root / n, model=MODEL, n_rows=300 + int(n)) for n in ("1", "2")}
    return good | {(MODEL, "3"): build_onnx_classifier(root / "3", model=MODEL)}  # it does not take what clients send


@pytest.fixture
def live(folders: dict[tuple[str, str], Path], tmp_path: Path) -> Iterator[Live]:
    (tmp_path / "home").mkdir()
    world = World.make(folders, tmp_path / "home")
    world.spec = replace(SPEC, rollout=CANARY)
    settings = settings_for(tmp_path / "serving" / "cache", key_folder=world.home / "keys")
    with running(settings, world.registry, clock=world.clock) as address, httpx.Client(base_url=address) as client:
        world.servers = Servers([address])
        world.compose(world.store, world.registry, world.keys)
        until(lambda: client.get("/readyz").status_code == httpx.codes.OK)
        yield Live(world, client)
    world.store.close()


@pytest.mark.timeout(600)
def test_a_good_version_gets_all_traffic_share_by_share(live: Live) -> None:
    world = live.world
    world.ask("2")
    until(lambda: live.shows("2", WEIGHTS[0]))
    answered = live.until_over(world.step)
    rollout = world.rollouts.get(MODEL).rollout
    assert rollout.state is RolloutState.COMPLETED
    shares = [sum(place_of(MODEL, f"customer-{n}".encode()) < weight for n in range(N_KEYS)) for weight in WEIGHTS]
    seen = [counts["2"] for counts in answered]
    assert list(dict.fromkeys(seen)) == shares, "each key stays where its share puts it"
    assert live.minute() == Counter({"2": N_KEYS})
    row = standing_at(world.store.ledger(MODEL), world.clock.now())
    assert row is not None
    assert (row.version, row.move) == ("2", "promoted")
    assert live.client.get("/status").json()["models"][MODEL]["epoch"] == row.epoch
    assert world.wrong() == []


@pytest.mark.timeout(600)
def test_a_bad_version_loses_its_traffic_and_no_client_saw_an_error(live: Live) -> None:
    world = live.world
    world.stage("3")
    world.ask("3")
    until(lambda: live.shows("3", WEIGHTS[0]))
    answered = live.until_over(world.step)
    rollout = world.rollouts.get(MODEL).rollout
    assert rollout.state is RolloutState.ABORTED
    assert "errors: 1 of" in rollout.reason
    assert {version for counts in answered for version in counts} == {"1"}
    assert live.minute() == Counter({"1": N_KEYS})
    assert world.wrong() == []
