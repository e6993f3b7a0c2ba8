"""Garbage collection over a real platform: the dry run names what the run removes, and nothing that is needed goes."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from release_platform.audit import observe, with_lineage
from release_platform.defs.garbage import needed_snapshots
from release_platform.domain.attestation import SIGNATURE_TAG
from release_platform.domain.errors import IntegrityError, NotFound, Refused
from release_platform.domain.invariants import violations
from release_platform.domain.policy import RequestState
from release_platform.domain.policy_spec import PolicySpec
from release_platform.garbage import Collector, Garbage, Kind, Plan
from tests.integration.homes import Home, changed, example, open_home, why

MODEL = "diabetes"
GREEDY = PolicySpec(current_baseline=False, keep_versions=1, keep_days=0)
OPEN = changed(example(MODEL), policy=GREEDY)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Versions 1 and 2 were in Production; 3 never; 4 is asked for; 5 is in Staging. Each was trained anew."""
    with open_home(tmp_path_factory.mktemp("garbage") / "home") as opened, closing(opened.services.store):
        for number in range(1, 6):
            seeded = changed(OPEN, estimator=replace(OPEN.spec.estimator, parameters={"alpha": float(number)}))
            result = opened.release(seeded)
            assert result.success, why(result)
            request = {"model": MODEL, "actor": "ada", "reason": "better", "request_id": f"q{number}"}
            if number != 3 and number != 5:
                assert opened.launch("request_promotion", OPEN, **request).success
            if number < 3:
                assert opened.launch("promote", OPEN, request_id=f"q{number}").success
        yield opened


def collector(home: Home, policy: PolicySpec = GREEDY) -> Collector:
    services = home.services
    return Collector(services.releases, services.tracking, services.snapshots, {MODEL: policy})


def plan(home: Home, policy: PolicySpec = GREEDY) -> Plan:
    return collector(home, policy).plan(needed=needed_snapshots(home.instance), now=datetime.now(UTC))


def versions(found: Plan) -> list[str]:
    return [one.name for one in found.garbage if one.kind is Kind.VERSION]


def stray_snapshot(home: Home) -> Path:
    """Leaves a snapshot that no version was made of, as a run that failed its contract does."""
    folder = Path(home.services.settings.snapshot_root)
    some = next(iter(folder.glob("*.parquet")))
    stray = folder / ("0" * 64 + ".parquet")
    for path, target in ((some, stray), (some.with_suffix(".json"), stray.with_suffix(".json"))):
        target.write_bytes(path.read_bytes())
        os.utime(target, (time.time() - 5,) * 2)
    return stray


def test_only_what_nothing_reaches_is_planned(home: Home) -> None:
    assert versions(plan(home)) == ["3"]
    assert versions(plan(home, replace(GREEDY, keep_versions=3))) == []
    assert versions(plan(home, replace(GREEDY, keep_days=1))) == []


@pytest.mark.parametrize(
    ("version", "path"),
    [("1", "a plain rollback leads back"), ("2", "is in Production"), ("4", "q4 asks for it"), ("5", "is in Staging")],
)
def test_what_is_reached_cannot_be_removed_by_hand(home: Home, version: str, path: str) -> None:
    with pytest.raises(Refused, match=path):
        home.services.releases.remove(MODEL, version, actor="ada", reason="room")
    assert home.services.registry.get_version(MODEL, version).version == version


def test_no_snapshot_is_planned_while_the_data_of_runs_is_not_known(home: Home) -> None:
    stray_snapshot(home)
    found = collector(home).plan(needed=None, now=datetime.now(UTC))
    assert "under way" in found.snapshots_kept
    assert Kind.SNAPSHOT not in {one.kind for one in found.garbage}


def test_nothing_is_garbage_where_store_and_registry_do_not_belong_together(home: Home) -> None:
    registry = home.services.registry
    package = registry.get_version(MODEL, "5")
    client_made = registry.register(
        model=MODEL,
        model_id=home.record(OPEN, "trained_model").model_id,
        run_id=package.run_id,
        manifest=package.manifest,
        key="another platform",
        tags={SIGNATURE_TAG: package.tags[SIGNATURE_TAG]},
    )
    with pytest.raises(IntegrityError, match="the release store does not know it"):
        plan(home)
    registry.discard(MODEL, client_made.version)


def test_the_run_removes_what_the_dry_run_named_and_nothing_else(home: Home) -> None:
    stray = stray_snapshot(home)
    unrecorded = home.services.registry.register(
        model=MODEL,
        model_id=home.record(OPEN, "trained_model").model_id,
        run_id=home.registrations(OPEN)[0].mlflow_run_id,
        manifest=home.record(OPEN, "trained_model").manifest,
        key="cut off",
        tags={},
    )
    location = Path(client_uri(home, "3"))
    dry = plan(home)
    named = {(one.kind, one.name) for one in dry.garbage}
    assert named == {
        (Kind.VERSION, "3"),
        (Kind.UNRECORDED, unrecorded.version),
        (Kind.SNAPSHOT, str(stray)),
    }
    kept = {path for path in Path(home.services.settings.snapshot_root).glob("*.parquet") if path != stray}
    for one in dry.garbage:
        collector(home).collect(one, actor="ada")
    assert not location.exists()
    assert not stray.exists()
    assert not stray.with_suffix(".json").exists()
    assert set(Path(home.services.settings.snapshot_root).glob("*.parquet")) == kept
    with pytest.raises(NotFound):
        home.services.registry.get_version(MODEL, "3")
    assert plan(home) == Plan(garbage=())
    services = home.services
    seen = with_lineage(observe(services.releases, MODEL), services.tracking, services.snapshots)
    assert violations(seen) == ()


def test_a_removal_that_was_cut_off_is_carried_on(home: Home) -> None:
    home.services.store.close_request("q4", RequestState.REFUSED, "withdrawn")
    home.services.store.record_removal(MODEL, "4", actor="ada", reason="room")  # and the process died here
    (one,) = plan(home).garbage
    assert one == Garbage(
        kind=Kind.UNFINISHED, model=MODEL, name="4", why="its removal was cut off", size_bytes=one.size_bytes
    )
    collector(home).collect(one, actor="ada")
    assert plan(home).garbage == ()


def client_uri(home: Home, version: str) -> str:
    from mlflow import MlflowClient

    uri = MlflowClient(home.services.settings.tracking_uri).get_model_version_download_uri(MODEL, version)
    return uri.removeprefix("file://")
