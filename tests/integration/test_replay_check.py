"""The check `replay` in Dagster, over a real release store, packages and recordings."""

from dataclasses import replace
from types import SimpleNamespace

import dagster as dg
import pytest

from release_platform.component import build_model
from release_platform.defs.replay import build_replay_check, replay_key
from release_platform.defs.resources import Platform, Records
from release_platform.domain.policy_spec import PolicySpec
from release_platform.project import Project
from tests.fakes.rollout_world import MODEL, World
from tests.integration.test_replays import POLICY, folders, record, replays, world

__all__ = ["folders", "world"]  # fixtures


@pytest.mark.parametrize(("n_rows", "passed"), [(99, False), (100, True)])
def test_the_check_replays_staging_and_passes_only_over_enough_rows(world: World, n_rows: int, passed: bool) -> None:
    record(world, n_rows)
    project = Project(spec=replace(world.spec, policy=POLICY), folder=world.home)
    services = SimpleNamespace(store=world.store, replays=replays(world))
    platform = dg.ResourceDefinition.hardcoded_resource(SimpleNamespace(services=services))
    location = dg.Definitions(
        asset_checks=[build_replay_check(project)],
        jobs=[dg.define_asset_job("look", dg.AssetSelection.checks(replay_key(project)))],
        resources={"platform": platform},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        done = location.resolve_job_def("look").execute_in_process(instance=instance)
    (check,) = done.get_asset_check_evaluations()
    assert check.passed is passed
    assert check.metadata["rows"].value == n_rows
    assert ("inconclusive" in str(check.description)) is not passed


@pytest.mark.parametrize(("policy", "runs"), [(PolicySpec(), False), (POLICY, True)])
def test_a_release_replays_only_where_a_promotion_asks_for_it(world: World, policy: PolicySpec, runs: bool) -> None:
    project = Project(spec=replace(world.spec, policy=policy), folder=world.home)
    more = dg.Definitions(resources={"platform": Platform(), "records": Records()})
    job = dg.Definitions.merge(build_model(project), more).resolve_job_def(f"release_{MODEL}")
    assert any("replay" in node.name for node in job.nodes) is runs
