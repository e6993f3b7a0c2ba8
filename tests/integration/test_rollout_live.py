"""A rollout over a real server under load: a good version gets all traffic, a bad one loses what it had.

Release store, packages, signatures, server and HTTP are real; the time of both is the test's, so that minutes pass.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from release_platform.adapters.servers import Servers
from release_platform.domain.ledger import standing_at
from release_platform.domain.rollback import POLICY
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.rollout import Order, RolloutState
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, StepSpec, Strategy
from release_platform.watch import Look
from serving.routing import place_of
from tests.fakes.packages import CANCER_CLASSES, CANCER_INPUTS, build_linear_classifier, build_onnx_classifier
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
    unlabelled: list[list[str]] = field(default_factory=list)

    def ask(self, key: str) -> httpx.Response:
        return self.client.post(f"/v1/models/{MODEL}/predict", json={"rows": [ROW]}, headers={"x-route-key": key})

    def minute(self) -> Counter[str]:
        """Lets a minute pass in which every key asks once; returns how many were answered by which version."""
        answers = [self.ask(f"customer-{n}") for n in range(N_KEYS)]
        assert {answer.status_code for answer in answers} == {200}, "a client was let down"
        self.client.get("/v1/windows").raise_for_status()  # counts what was put down, before the clock moves
        self.world.clock.pass_s(60)
        self.unlabelled.append([answer.headers["x-prediction-id"] for answer in answers])
        return Counter(answer.headers["x-model-version"] for answer in answers)

    def label(self, truth: str, other: str) -> None:
        """Tells what would have been right of the predictions of the minute before the last; of each tenth `other`."""
        if len(self.unlabelled) < 2:
            return
        ids = self.unlabelled.pop(0)
        told = [{"prediction_id": one, "label": truth if n % 10 else other} for n, one in enumerate(ids)]
        said = self.client.post("/v1/outcomes", json=told).json()
        assert said["counted"] == N_KEYS, said

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
    good[MODEL, "4"] = build_linear_classifier(root / "4", model=MODEL, contrary=True)
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
        world.clock.pass_s(60)  # the minute in which the server began is a hole
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
    assert list(dict.fromkeys(seen)) == [*shares, N_KEYS], "each key stays where its share puts it"
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
    assert "errors: 100 % of" in rollout.reason
    assert {version for counts in answered for version in counts} == {"1"}
    assert live.minute() == Counter({"1": N_KEYS})
    assert world.wrong() == []


# Labels that come later


LABELS = (LiveGateSpec(metric=LiveMetric.LABEL_QUALITY, margin=0.2),)


def truths(live: Live) -> tuple[str, str]:
    """Returns what version 1 says of the row, which is right, and the other label."""
    said = live.ask("anybody").json()["predictions"][0]
    return (said, next(label for label in CANCER_CLASSES if label != said))


@pytest.mark.timeout(600)
def test_labels_that_come_later_show_that_a_version_is_worse_and_it_is_taken_back(live: Live) -> None:
    world = live.world
    world.spec = replace(SPEC, rollback_policy=RollbackSpec(gates=LABELS, record_minutes=5))
    truth, other = truths(live)

    def minute() -> Look:
        live.label(truth, other)
        live.minute()
        found = world.watch.look(MODEL, world.spec)
        assert found is not None
        return found

    for _ in range(7):
        minute()
    world.stage("4")
    world.ask("4", Strategy.ALL_AT_ONCE)
    until(lambda: live.ask("anybody").headers["x-model-version"] == "4")
    looks = [minute()]
    while looks[-1].row is None and len(looks) < LONGEST:
        looks.append(minute())
    row = looks[-1].row
    assert row is not None, looks[-1].said
    assert (row.version, row.move, row.actor) == ("1", "rolled_back", POLICY)
    assert row.reason.startswith("label_quality: 90 % of ")
    assert "10 % of " in row.reason
    assert len(looks) > 2, "of the first minutes nobody knew what would have been right"
    assert live.minute() == Counter({"1": N_KEYS})
    assert world.wrong() == []


@pytest.mark.timeout(600)
def test_labels_that_come_later_join_both_arms_of_a_canary_and_end_it(live: Live) -> None:
    world = live.world
    world.spec = replace(SPEC, rollout=replace(CANARY, gates=LABELS))
    truth, other = truths(live)
    world.stage("4")
    world.ask("4")
    until(lambda: live.shows("4", WEIGHTS[0]))

    def look() -> None:
        world.step()
        live.label(truth, other)

    answered = live.until_over(look)
    rollout = world.rollouts.get(MODEL).rollout
    assert (rollout.state, rollout.stage) == (RolloutState.ABORTED, 0)
    assert rollout.reason.startswith("label_quality: 100 % of 40 bad against 16.67 % of 60 stable")
    assert all(counts["4"] and counts["1"] for counts in answered)
    assert live.minute() == Counter({"1": N_KEYS})
    assert world.wrong() == []


# Shares are pushed


NEVER = 3600.0


@pytest.fixture
def deaf(folders: dict[tuple[str, str], Path], tmp_path: Path) -> Iterator[Live]:
    """The same, over a server that looks at the registry only when it starts."""
    (tmp_path / "home").mkdir()
    world = World.make(folders, tmp_path / "home")
    world.spec = replace(SPEC, rollout=CANARY)
    settings = settings_for(tmp_path / "serving" / "cache", key_folder=world.home / "keys", refresh_s=NEVER)
    with running(settings, world.registry, clock=world.clock) as address, httpx.Client(base_url=address) as client:
        world.servers = Servers([address])
        world.compose(world.store, world.registry, world.keys)
        until(lambda: client.get("/readyz").status_code == httpx.codes.OK)
        world.clock.pass_s(60)  # the minute in which the server began is a hole
        yield Live(world, client)
    world.store.close()


@pytest.mark.timeout(600)
def test_a_server_has_each_share_when_the_order_returns_whatever_the_registry_does(deaf: Live) -> None:
    world = deaf.world
    world.ask("2")
    assert deaf.shows("2", WEIGHTS[0])
    assert deaf.minute()["2"] > 0
    world.registry.down = True
    world.order(Order.ABORT)
    assert deaf.shows(None), "it needs no registry to take a version away"
    assert deaf.minute() == Counter({"1": N_KEYS})
    assert world.rollouts.get(MODEL).settled
    world.registry.down = False
    assert world.wrong() == []


@pytest.mark.timeout(600)
def test_while_one_of_two_servers_is_gone_a_good_version_goes_no_further(live: Live, tmp_path: Path) -> None:
    world = live.world
    settings = settings_for(tmp_path / "other" / "cache", key_folder=world.home / "keys")
    with running(settings, world.registry, clock=world.clock) as other:
        until(lambda: httpx.get(f"{other}/readyz").status_code == httpx.codes.OK)
        world.clock.pass_s(60)
        world.servers = Servers([str(live.client.base_url), other])
        world.compose(world.store, world.registry, world.keys)
        world.ask("2")
        for _ in range(2):
            live.minute()
            httpx.get(f"{other}/v1/windows").raise_for_status()
            world.step()
    for _ in range(6):
        live.minute()
        step = world.step()
    assert step is not None
    assert step.said[0].startswith(f"{other} hands in no windows")
    assert world.stage_now == (RolloutState.RUNNING, 0)
    assert f"not all that {other} counted was handed in" in step.looked[0].result.reason
    world.servers = Servers([str(live.client.base_url)])  # it is taken away on purpose
    world.compose(world.store, world.registry, world.keys)
    live.until_over(world.step)
    assert world.rollouts.get(MODEL).rollout.state is RolloutState.ABORTED, "too many minutes of the stage are holes"
