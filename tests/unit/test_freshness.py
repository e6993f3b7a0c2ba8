"""How old an asset may become is what the model's YAML says of that asset, and of no other."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from release_platform.defs.naming import STAGES, shared
from release_platform.project import Project
from tests.unit.test_spec import spec

PROJECT = Project(
    spec=spec(freshness={"raw_data": {"fail_s": 600, "warn_s": 90}, "drift_report": {"fail_s": 86400}}), folder=Path()
)


def policy_of(stage: str) -> object:
    return shared(PROJECT, stage, kinds=set(), description="")["freshness_policy"]


@pytest.mark.parametrize(("stage", "fail_s", "warn_s"), [("raw_data", 600, 90), ("drift_report", 86400, None)])
def test_an_asset_fails_and_warns_at_the_ages_of_the_yaml(stage: str, fail_s: float, warn_s: float | None) -> None:
    warn = None if warn_s is None else timedelta(seconds=warn_s)
    assert policy_of(stage) == dg.FreshnessPolicy.time_window(fail_window=timedelta(seconds=fail_s), warn_window=warn)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "raw_data"])
def test_an_asset_without_an_age_has_none(stage: str) -> None:
    assert policy_of(stage) is None
