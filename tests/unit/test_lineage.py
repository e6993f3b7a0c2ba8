"""Lineage without any system: which stories disagree, what is void, what is hidden, and the OpenLineage events."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from release_platform.domain.evidence import Measurement
from release_platform.domain.fingerprint import ColumnFingerprint, Fingerprint, combined
from release_platform.domain.ledger import LedgerRow, sealed
from release_platform.domain.lifecycle import Head, Move
from release_platform.domain.lineage import (
    ApprovalState,
    CertifiedMove,
    Lineage,
    Materialization,
    described_source,
    disagreements,
    judged,
    metric_account,
    mlflow_digest,
    run_account,
    snapshot_account,
    store_account,
)
from release_platform.domain.openlineage import run_events, source_name
from release_platform.domain.policy import Approval
from release_platform.domain.snapshot import Snapshot
from tests.openlineage_spec import breaches, unpaired
from tests.unit.test_policy import NOW, REGISTRATION, REQUEST

APPROVAL = Approval(request_id="q", actor="grace", binding="sha256:b", reason="read it", approved_at=NOW)
RUN = "3b452093-782c-4ef2-9c0c-aafe2aa6f34d"


# Disagreements


def test_systems_that_say_the_same_agree_whatever_else_each_knows() -> None:
    assert disagreements({"a": {"digest": "1", "commit": "c"}, "b": {"digest": "1", "lock": "l"}}) == ()


def test_a_difference_names_the_fact_and_what_each_system_says_of_it() -> None:
    accounts = {"a": {"digest": "1"}, "b": {"digest": "2"}, "c": {"commit": "c"}}
    assert disagreements(accounts) == ("digest: a says 1; b says 2",)


def test_a_fact_that_a_system_lost_is_a_disagreement_and_one_that_it_was_not_asked_for_is_none() -> None:
    assert disagreements({"a": {"digest": "1"}, "b": {"digest": None}}) == ("digest: a says 1; b has none",)
    assert disagreements({"a": {"digest": "1"}, "b": {}}) == ()
    assert disagreements({"a": {"digest": None}}) == ("digest: a has none",)


TAGS = {
    "release.digest": "sha256:d",
    "release.model_digest": "sha256:m",
    "release.data_fingerprint": "sha256:f",
    "release.snapshots": '{"b": "y", "a": "x"}',
    "release.code_version": "sha256:c",
    "env.git_commit": "commit",
    "env.lock": "lock",
    "dagster_run_id": RUN,
}


def test_an_mlflow_run_with_the_recorded_tags_and_dataset_agrees_with_the_release_store() -> None:
    run = run_account("run", TAGS, ["f", "f"])
    assert disagreements({"store": store_account(REGISTRATION), "run": run}) == ()
    assert run["snapshots"] == '{"a": "x", "b": "y"}'  # whatever order they were written in


@pytest.mark.parametrize("tag", [tag for tag in TAGS if tag.startswith("release.") and tag != "release.snapshots"])
def test_each_edited_and_each_deleted_tag_of_a_run_is_found(tag: str) -> None:
    store = store_account(REGISTRATION)
    edited, deleted = {**TAGS, tag: "sha256:other"}, {name: value for name, value in TAGS.items() if name != tag}
    assert len(disagreements({"store": store, "run": run_account("run", edited, ["f"])})) == 1
    assert len(disagreements({"store": store, "run": run_account("run", deleted, ["f"])})) == 1


@pytest.mark.parametrize("datasets", [[], ["other"], ["f", "other"]])
def test_a_dataset_that_is_gone_or_another_or_one_too_many_is_found(datasets: list[str]) -> None:
    found = disagreements({"store": store_account(REGISTRATION), "run": run_account("run", TAGS, datasets)})
    assert [line.split(":")[0] for line in found][:1] == ["dataset digest"]


def test_mlflow_keeps_the_first_36_characters_of_a_digest() -> None:
    assert mlflow_digest("sha256:" + "a" * 64) == "a" * 36


def test_partitions_are_one_fingerprint_and_none_say_nothing() -> None:
    assert snapshot_account({"all": "sha256:f"}) == {"data fingerprint": "sha256:f"}
    parts = {"2013-01": "sha256:a", "2013-02": "sha256:b"}
    assert snapshot_account(parts) == {"data fingerprint": combined(parts)}
    assert snapshot_account({}) == {}


def test_metrics_are_compared_to_the_last_bit_and_those_not_measured_not_at_all() -> None:
    assert metric_account({"recall": 0.1 + 0.2, "auc": None}) == {"metric recall": "0.30000000000000004"}


# Approvals and sources


@pytest.mark.parametrize(
    ("approval", "state"),
    [
        (APPROVAL, "valid"),
        (replace(APPROVAL, binding="sha256:other"), "void: the model, its report or the policy is another one now"),
        (replace(APPROVAL, actor=" Ada "), "void: by the requester"),
    ],
)
def test_an_approval_is_valid_or_says_why_it_is_void(approval: Approval, state: str) -> None:
    assert judged(approval, REQUEST, "sha256:b").state == state


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ({"csv": "data/*.csv", "sql": None}, {"csv": "data/*.csv"}),
        (
            {"csv": None, "sql": {"url": "postgresql://ada:secret@host:5432/db", "query": "SELECT 1"}},
            {"sql.url": "postgresql://ada:***@host:5432/db", "sql.query": "SELECT 1"},
        ),
        ({"python": "module:function"}, {"python": "module:function"}),
    ],
)
def test_a_source_is_shown_without_its_password(source: Mapping[str, object], shown: dict[str, str]) -> None:
    assert described_source(source) == shown


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"csv": "/data/a.csv"}, ("file", "/data/a.csv")),
        ({"parquet": "s3://bucket/a/b.parquet"}, ("s3://bucket", "a/b.parquet")),
        ({"sql.url": "postgresql+psycopg2://ada:***@host:5432/db", "sql.query": "q"}, ("postgres://host:5432", "db")),
        ({"sql.url": "env:URL", "sql.query": "q"}, ("sql", "env:URL")),
        ({"package.package": "sklearn", "package.file": "a.csv"}, ("package", "sklearn/a.csv")),
        ({"python": "module:function"}, ("python", "module:function")),
        ({}, ("unknown", "unknown")),
    ],
)
def test_a_source_is_named_as_openlineage_names_it(source: dict[str, str], name: tuple[str, str]) -> None:
    assert source_name(source) == name


# The whole value


def snapshot(content: str, n_rows: int = 3) -> Snapshot:
    column = ColumnFingerprint(name="x", dtype="float64", n_missing=1, digest=f"sha256:{content}", blocks=())
    of = Fingerprint(n_rows=n_rows, columns=(column,))
    return Snapshot(uri=f"/data/{content}.parquet", fingerprint=of, n_rows=n_rows, size_bytes=10)


def made(stage: str, *, run_id: str = RUN, partition: str | None = None, ledger_hash: str = "") -> Materialization:
    return Materialization(
        stage=stage,
        partition=partition,
        run_id=run_id,
        job="release_m",
        storage_id=7,
        started_at=NOW - timedelta(seconds=2),
        at=NOW,
        link="http://dagster/assets/m",
        ledger_hash=ledger_hash,
    )


ROW = sealed(
    LedgerRow(
        model="m",
        epoch=2,
        move=Move.PROMOTED,
        version="2",
        actor="ada",
        reason="better",
        request_id="q",
        evidence="sha256:r",
        digest="sha256:d",
        before=Head(model="m", epoch=1, staging="2").to_json(),
        after=Head(model="m", epoch=2, production="2", ever=("2",)).to_json(),
        at=NOW.isoformat(),
        previous_hash="sha256:p",
    )
)
LINEAGE = Lineage(
    registration=REGISTRATION,
    stands=("production",),
    source={"csv": "/data/a.csv"},
    data={"2013-01": snapshot("a"), "2013-02": snapshot("b")},
    features=snapshot("f"),
    n_training_rows=4,
    n_held_out_rows=2,
    environment={"git_commit": "commit"},
    parameters={"seed": "0"},
    metrics={
        "recall": Measurement(value=0.9, lower=0.8, upper=1.0, n_rows=2),
        "fit_s": Measurement(value=0.1, n_rows=0),
    },
    moves=(CertifiedMove(row=ROW, certificate="valid"),),
    requests=(REQUEST,),
    approvals=(
        ApprovalState(approval=APPROVAL, state="valid"),
        ApprovalState(approval=replace(APPROVAL, actor="eve"), state="void: by the requester"),
        ApprovalState(approval=replace(APPROVAL, actor="old", request_id="before"), state="valid"),
    ),
    stages=(
        made("raw_data", partition="2013-01", run_id="earlier"),
        made("raw_data", partition="2013-02"),
        made("features"),
        made("trained_model"),
        made("evaluation_report"),
        made("registered_version"),
        made("production_version", ledger_hash=ROW.hash),
    ),
    runs=(),
    links={"mlflow_model_version": "http://mlflow/#/models/m/versions/2"},
    disagreements=(),
    missing=(),
)
EVENTS = list(run_events(LINEAGE, producer="pkg:pypi/model-release-platform@1", namespace="dagster://host:3000"))


def completed(stage: str) -> list[dict]:
    return [e for e in EVENTS if e["eventType"] == "COMPLETE" and e["job"]["name"] == f"m.{stage}"]


def test_it_is_consistent_or_not_or_nobody_knows() -> None:
    assert LINEAGE.consistent is True
    assert replace(LINEAGE, missing=("MLflow: down",)).consistent is None
    assert replace(LINEAGE, missing=("MLflow: down",), disagreements=("digest: ...",)).consistent is False


def test_as_json_it_has_every_part_and_no_number_that_nobody_measured() -> None:
    found = json.loads(json.dumps(LINEAGE.to_json()))
    assert found["metrics"] == {
        "recall": {"value": 0.9, "lower": 0.8, "upper": 1.0, "n_rows": 2},
        "fit_s": {"value": 0.1},
    }
    assert [part["partition"] for part in found["data"]["snapshots"]] == ["2013-01", "2013-02"]
    assert found["data"]["snapshots"][0]["column_digests"] == 1
    assert (found["moves"][0]["hash"], found["moves"][0]["certificate"]) == (ROW.hash, "valid")
    assert found["gates"][0]["limit"] == 0.8
    assert datetime.fromisoformat(found["materializations"][0]["at"]) == NOW


# OpenLineage


def test_every_event_is_what_the_specification_asks_for() -> None:
    assert [breaches(event) for event in EVENTS] == [[]] * len(EVENTS)


def test_every_run_starts_and_completes_once() -> None:
    assert len(EVENTS) == 14  # seven runs: two of raw data, for it was ingested in two Dagster runs
    assert unpaired(EVENTS) == []


def test_run_ids_are_the_same_whenever_they_are_written() -> None:
    again = run_events(LINEAGE, producer="pkg:pypi/other@1", namespace="other")
    assert [event["run"]["runId"] for event in again] == [event["run"]["runId"] for event in EVENTS]


def test_the_parent_of_a_stage_is_its_dagster_run_and_a_run_that_is_no_uuid_gets_one() -> None:
    assert completed("features")[0]["run"]["facets"]["parent"]["run"]["runId"] == RUN
    parents = {event["run"]["facets"]["parent"]["run"]["runId"] for event in completed("raw_data")}
    assert len(parents) == 2


def test_what_a_stage_made_is_what_the_next_one_reads() -> None:
    raw = {output["name"] for event in completed("raw_data") for output in event["outputs"]}
    assert raw == {"m/raw_data/2013-01", "m/raw_data/2013-02"}
    order = [completed(stage)[0] for stage in ("features", "trained_model", "evaluation_report", "registered_version")]
    reads = [{part["name"] for part in event["inputs"]} for event in [*order, completed("production_version")[0]]]
    assert reads[0] == raw
    for made_before, read in zip(order, reads[1:], strict=True):
        assert {part["name"] for part in made_before["outputs"]} <= read


def test_a_partition_is_written_by_the_run_that_ingested_it_with_its_rows_and_its_own_version() -> None:
    (first,) = [e for e in completed("raw_data") if e["run"]["facets"]["parent"]["run"]["runId"] != RUN]
    (output,) = first["outputs"]
    assert output["name"] == "m/raw_data/2013-01"
    assert output["facets"]["version"]["datasetVersion"] == snapshot("a").digest
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert first["inputs"][0]["name"] == "/data/a.csv"


def test_gates_are_assertions_over_the_report_and_the_move_names_who_validly_approved_it() -> None:
    report = completed("registered_version")[0]["inputs"][1]
    assertions = report["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert assertions == [{"assertion": "auc", "success": True}]
    move = completed("production_version")[0]["run"]["facets"]["release_move"]
    assert (move["actor"], move["hash"], move["approvedBy"]) == ("ada", ROW.hash, ["grace"])


def test_stages_that_dagster_did_not_show_have_no_events() -> None:
    assert run_events(replace(LINEAGE, stages=()), producer="pkg:pypi/a@1", namespace="n") == ()


@pytest.mark.parametrize(
    "broken",
    [
        {"eventTime": "2026-01-01T00:00:00"},
        {"eventType": "DONE"},
        {"producer": "us"},
        {"schemaURL": "https://openlineage.io/spec/1-0-0/OpenLineage.json"},
        {"job": {"namespace": "n", "name": ""}},
        {"extra": 1},
    ],
)
def test_the_check_itself_finds_a_broken_event(broken: dict) -> None:
    assert breaches(EVENTS[0]) == []
    assert breaches({**EVENTS[0], **broken}) != []
