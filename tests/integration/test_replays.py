"""A candidate over recorded requests: the report and its digest, and the promotion that asks for it.

Release store, packages and recordings are real.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.recordings import Recordings
from release_platform.domain.errors import IntegrityError, NotFound, Refused
from release_platform.domain.gates import Verdict
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.replay import judge_replay
from release_platform.domain.replay_spec import ReplaySpec
from release_platform.replays import Replays
from tests.fakes.clock import FakeClock
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier, build_onnx_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.rollout_world import MODEL, START, World
from tests.fakes.servers import FakeServers

LIMITS = ReplaySpec(max_latency_ratio=1000.0, minimum_rows=100, max_flip_share=0.9)
POLICY = PolicySpec(replay=LIMITS, current_baseline=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    built = {(MODEL, n): build_linear_classifier(root / n, model=MODEL, n_rows=int(n) * 80) for n in ("1", "2")}
    return built | {(MODEL, "3"): build_onnx_classifier(root / "3", model=MODEL)}  # its columns have other names


@pytest.fixture
def world(folders: dict[tuple[str, str], Path], tmp_path: Path) -> Iterator[World]:
    """Version 1 in Production, version 2 in Staging, and no recorded request."""
    (tmp_path / "home").mkdir()
    made = World.make(folders, tmp_path / "home")
    yield made
    made.store.close()


def recordings(world: World) -> Recordings:
    return Recordings(str(world.home / "recordings"))


def replays(world: World) -> Replays:
    return Replays(world.releases, recordings(world), world.clock)


def record(world: World, n_rows: int, *, days_ago: int = 1) -> None:
    random = np.random.default_rng(days_ago)
    columns = {
        name: random.normal(mean, mean / 3, n_rows) for name, mean in zip(CANCER_INPUTS, (14, 20, 600), strict=True)
    }
    at = pd.Timestamp(START - timedelta(days=days_ago))
    ids = [f"r{days_ago}-{place:x}" for place in range(n_rows)]
    rows = pd.DataFrame({**columns, "prediction": "benign", "prediction_id": ids, "at": at})
    recordings(world).add(MODEL, "1", at.date(), rows, name=f"{days_ago}")


def promote(world: World, version: str = "2") -> None:
    wish = world.releases.request(MODEL, version=version, actor="ada", reason="better")
    world.releases.promote(wish.request_id, POLICY)


def test_the_same_requests_give_the_same_digest(world: World) -> None:
    record(world, 120)
    record(world, 30, days_ago=10)
    first = replays(world).run(MODEL)
    world.clock.pass_s(60)
    second = replays(world).run(MODEL)
    assert first.digest == second.digest
    assert first.at != second.at
    assert (first.stable.version, first.candidate.version) == ("1", "2")
    assert (first.n_recorded, first.n_rows, first.n_answered, first.n_refused) == (120, 120, 120, 0)
    assert 0 < (first.flip_share or 0) < 1
    assert set(first.stable.latency_ms) == set(first.candidate.latency_ms) == {"p50", "p95", "p99"}
    assert world.store.replays.find_last(MODEL, "2") == second
    longer = replays(world).run(MODEL, since=timedelta(weeks=4), most_rows=140)
    assert (longer.n_recorded, longer.n_rows) == (150, 140)
    assert longer.digest != first.digest


def test_a_promotion_waits_for_a_replay_over_enough_rows(world: World) -> None:
    with pytest.raises(Refused, match="it was not replayed over recorded requests: run `release replay churn"):
        promote(world)
    record(world, 99)
    replays(world).run(MODEL)
    with pytest.raises(
        Refused,
        match="replay_flips, replay_slice_flips, replay_latency inconclusive: version 1 answered 99 recorded row",
    ):
        promote(world)
    record(world, 1, days_ago=2)
    assert {gate.verdict for gate in judge_replay(replays(world).run(MODEL), LIMITS)} == {Verdict.PASSED}
    promote(world)
    assert world.store.head(MODEL).production == "2"


def test_a_candidate_that_takes_other_columns_refuses_every_row_and_is_not_promoted(world: World) -> None:
    world.stage("3")
    record(world, 120)
    found = replays(world).run(MODEL, version="3")
    assert found.candidate.refused == {"absent column: mean_radius": 120}
    with pytest.raises(Refused, match="replay_refused failed: the share of rows that it refuses is 1, above"):
        promote(world, "3")


def test_a_report_beside_another_production_version_is_none(world: World) -> None:
    world.stage("3")
    record(world, 120)
    replays(world).run(MODEL, version="3")
    replays(world).run(MODEL, version="2")
    promote(world)
    with pytest.raises(Refused, match="replayed beside version 1, but Production is version 2 now"):
        promote(world, "3")


def test_without_anything_to_compare_it_says_what_is_missing(
    world: World, folders: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="there is no version 9"):
        replays(world).run(MODEL, version="9")
    (tmp_path / "new").mkdir()
    empty = World(tmp_path / "new", FakeRegistry(folders, signs=False), FakeClock(START), FakeServers("http://one"))
    with pytest.raises(NotFound, match="nothing is in Production"):
        replays(empty).run(MODEL)
    empty.stage("1")
    promote(empty, "1")  # the first promotion needs no replay
    with pytest.raises(NotFound, match="there is no version in Staging"):
        replays(empty).run(MODEL)
    empty.store.close()


def test_files_that_are_not_the_registered_ones_are_never_asked(world: World) -> None:
    other = replace(world.store.registrations(MODEL)[1], version="4", digest="sha256:other")
    world.store.record_registration(other)
    with pytest.raises((IntegrityError, NotFound)):
        replays(world).run(MODEL, version="4")
