"""What a ledger row says of the run that put a version in Staging."""

import dagster as dg
import pytest

from release_platform.defs.retraining import RETRAIN_TAG, WHY_TAG, started_by

BY_SENSOR = {RETRAIN_TAG: "data-1-2", WHY_TAG: "the source holds other data (3,200 rows)"}


def said(tags: dict[str, str]) -> str:
    return started_by(dg.DagsterRun(job_name="release_churn", tags=tags), "churn")


@pytest.mark.parametrize("tags", [{}, BY_SENSOR | {"dagster/parent_run_id": "a", "dagster/root_run_id": "a"}])
def test_a_run_of_a_person_is_not_called_a_retraining(tags: dict[str, str]) -> None:
    assert said(tags) == ""


def test_a_run_of_the_sensor_says_what_it_was_started_for() -> None:
    assert said(BY_SENSOR) == "; started by retrain_churn: the source holds other data (3,200 rows)"


def test_an_automatic_retry_of_it_is_still_a_retraining() -> None:
    retry = {"dagster/parent_run_id": "a", "dagster/retry_number": "1"}
    assert said(BY_SENSOR | retry) == "; started by retrain_churn: the source holds other data (3,200 rows)"
