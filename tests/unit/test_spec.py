"""The YAML of a model: every mistake is one clear error that names file, field and remedy."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster.components.core.component_tree import ComponentTreeException

from release_platform.component import ModelReleaseAttributes
from release_platform.definitions import load_projects
from release_platform.domain.alarms import Budget
from release_platform.domain.errors import SpecError
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.spec import ModelSpec
from release_platform.domain.strategy import RolloutSpec, StageKind, Strategy
from release_platform.project import SPEC, parse_spec, read_projects

EXAMPLES = Path(__file__).parents[2] / "release_platform" / "examples"
FILE = Path("models/churn/defs.yaml")


def attributes(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": "churn",
        "task": "binary",
        "owner": "team:growth",
        "source": {"csv": "churn.csv"},
        "contract": {
            "columns": {
                "age": {"type": "integer", "minimum": 0},
                "plan": {"type": "category", "nullable": True},
                "since": {"type": "timestamp"},
                "churned": {"type": "boolean"},
            }
        },
        "target": {"column": "churned", "positive": True},
        "features": ["age", "plan", {"name": "hour", "operation": "hour", "of": ["since"]}],
        "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
        "gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.7}],
    }
    return {**value, **changes}


def spec(**changes: Any) -> ModelSpec:
    return parse_spec(attributes(**changes), file=FILE)


def problem(**changes: Any) -> str:
    with pytest.raises(SpecError) as caught:
        spec(**changes)
    assert str(FILE) in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize("example", sorted(path.parent.name for path in EXAMPLES.glob("*/defs.yaml")))
def test_every_example_is_valid(example: str) -> None:
    file = EXAMPLES / example / "defs.yaml"
    described = yaml.safe_load(file.read_text())
    assert parse_spec(described["attributes"], file=file).name == example


def test_a_wrong_key_is_named_with_the_nearest_right_one() -> None:
    assert "gate: there is no such key; did you mean 'gates'?" in problem(gate=[])


def test_a_wrong_key_inside_a_part_is_named_with_its_path() -> None:
    assert "split.share: there is no such key" in problem(split={"share": 0.5})


def test_a_missing_key_is_named() -> None:
    value = attributes()
    del value["target"]
    with pytest.raises(SpecError, match="target: is missing"):
        parse_spec(value, file=FILE)


def test_several_mistakes_are_told_at_once() -> None:
    said = problem(seed="x", owner=3)
    assert "2 fields are wrong" in said
    assert "seed" in said
    assert "owner" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"gates": [{"name": "auc", "metric": "roc_acu", "minimum": 0.7}]},
            "unknown metric 'roc_acu'; did you mean 'roc_auc'?",
        ),
        ({"gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.7}] * 2}, "two gates are named 'auc'"),
        ({"gates": []}, "no blocking gate judges the model's quality"),
        ({"gates": [{"name": "size", "metric": "package_bytes", "maximum": 1}]}, "no blocking gate judges"),
        ({"gates": [{"name": "auc", "metric": "roc_auc"}]}, "has no limit"),
        (
            {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.7, "slice": "plan"}]},
            "which `slices` does not list",
        ),
        ({"gates": [{"name": "mae", "metric": "mae", "maximum": 1}]}, "'mae' is not defined for a binary model"),
        ({"gates": [{"name": "w", "metric": "roc_auc", "against": "production", "minimum": 1}]}, "takes a margin"),
        ({"gates": [{"name": "auc", "metric": "roc_auc", "minimum": float("nan")}]}, "minimum is nan"),
        ({"gates": [{"name": "auc", "metric": "roc_auc", "minimum": float("-inf")}]}, "minimum is -inf"),
        (
            {"gates": [{"name": "w", "metric": "roc_auc", "against": "production", "margin": float("inf")}]},
            "margin is inf",
        ),
        ({"policy": {"minimum_soak_s": float("nan")}}, "0 or more"),
        ({"search": {"parameters": {"C": [1.0]}, "metric": "brier"}}, "a search cannot optimise 'brier'"),
        ({"target": {"column": "churn", "positive": True}}, "did you mean 'churned'?"),
        ({"target": {"column": "churned"}}, "needs `positive` label"),
        ({"features": ["age", "churned"]}, "the model would be told the answer"),
        ({"features": ["agee"]}, "did you mean 'age'?"),
        ({"features": ["since"]}, "derive hour, weekday or month"),
        ({"features": [{"name": "x", "operation": "hour", "of": ["age"]}]}, "does not take the integer 'age'"),
        ({"features": [{"name": "x", "operation": "subtract", "of": ["age"]}]}, "takes 2 column(s), not 1"),
        ({"features": []}, "at least one feature"),
        ({"metrics": ["rmse"]}, "unknown metric 'rmse' for a binary model"),
        ({"name": "Churn!"}, "is not lower-case letters"),
        ({"owner": "somebody"}, "neither `team:name` nor an e-mail"),
        ({"source": {}}, "give exactly one of csv"),
        ({"source": {"csv": "a", "parquet": "b"}}, "give exactly one of csv"),
        ({"source": {"python": "nothing"}}, "is not `module:function`"),
        ({"split": {"strategy": "time"}}, "needs a column"),
        ({"split": {"test_share": 1.0}}, "above 0 and below 1"),
        ({"estimator": {"type": "os.system"}}, "is not a scikit-learn class"),
        ({"partitions": {"column": "since", "start": "2013-13", "end": "2014-01"}}, "not a month"),
        ({"partitions": {"column": "since", "start": "2014-02", "end": "2014-01"}}, "is after the last"),
        ({"task": "regression", "target": {"column": "plan"}}, "a regression's target is a number"),
    ],
)
def test_each_mistake_says_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    assert said in problem(**changes)


NIGHT = {"from": "22:00", "until": "06:00", "days": ["fri"], "timezone": "Europe/Berlin", "reason": "no one is here"}
LAUNCH = {"from": "2026-12-20T00:00:00+01:00", "until": "2027-01-04T00:00:00Z", "reason": "holidays"}


def test_freeze_windows_are_written_with_the_word_from() -> None:
    policy = spec(policy={"freeze": [NIGHT, LAUNCH]}).policy
    assert [window.from_ for window in policy.freeze] == ["22:00", "2026-12-20T00:00:00+01:00"]
    written = SPEC.dump_python(spec(policy={"freeze": [NIGHT]}), mode="json")
    assert written["policy"]["freeze"] == [NIGHT]
    assert parse_spec(written, file=FILE) == spec(policy={"freeze": [NIGHT]})


def test_the_schema_of_the_component_names_the_keys_of_the_yaml() -> None:
    window = ModelReleaseAttributes.model_json_schema()["$defs"]["FreezeWindow"]
    assert set(window["properties"]) == {"from", "until", "days", "timezone", "reason"}
    assert set(window["required"]) == {"from", "until", "reason"}


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ({**NIGHT, "timezone": "Europe/Berln"}, "no time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?"),
        ({**NIGHT, "timezone": "Europe"}, "no time zone 'Europe'"),
        ({**NIGHT, "timezone": "../etc"}, "no time zone '../etc'"),
        ({**NIGHT, "timezone": None}, "a weekly window needs a `timezone`"),
        ({**NIGHT, "days": []}, "`days` is empty"),
        ({**NIGHT, "days": ["fri", "fri"]}, "names a day twice"),
        ({**NIGHT, "days": ["friday"]}, "policy.freeze.0.days.0: Input should be 'mon'"),
        ({**NIGHT, "until": "24:00"}, "'24:00' is not a time"),
        ({**NIGHT, "from": 1320}, "policy.freeze.0.from: should be text, but YAML reads it as 1320: put it in quotes"),
        ({**NIGHT, "reason": " "}, "needs a reason"),
        ({**NIGHT, "days": None}, "`timezone` is for weekly windows"),
        ({**LAUNCH, "timezone": "UTC"}, "`timezone` is for weekly windows"),
        ({**LAUNCH, "until": LAUNCH["from"]}, "is not after from"),
        ({**LAUNCH, "until": "2026-12-19T23:00:00Z"}, "is not after from"),
        ({**LAUNCH, "from": "2026-12-20T00:00:00"}, "has no zone"),
        ({**LAUNCH, "from": "22:00"}, "'22:00' is not a moment"),
        ({"until": "06:00", "reason": "x"}, "policy.freeze.0.from: is missing"),
        ({**LAUNCH, "untill": "x"}, "policy.freeze.0.untill: there is no such key"),
    ],
)
def test_each_mistake_in_a_freeze_window_says_what_is_wrong(window: dict[str, Any], said: str) -> None:
    assert said in problem(policy={"freeze": [window]})


@pytest.mark.parametrize(
    "policy",
    [
        {"approvals_expire_s": 0},
        {"approvals_expire_s": float("nan")},
        {"approvals_expire_s": 1e12},
        {"minimum_soak_s": 1e12},
        {"keep_versions": -1},
        {"keep_days": float("nan")},
        {"keep_days": -0.1},
        {"tampering": "ignore"},
    ],
)
def test_a_wrong_value_of_the_policy_is_named(policy: dict[str, Any]) -> None:
    assert next(iter(policy)) in problem(policy=policy)


def test_moments_without_quotes_are_read_alike_by_every_loader(tmp_path: Path) -> None:
    unquoted = yaml.safe_dump({"type": "t", "attributes": attributes(policy={"freeze": [LAUNCH]})}).replace("'", "")
    assert "from: 2026-12-20T00:00:00+01:00" in unquoted
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn" / "defs.yaml").write_text(unquoted)
    found, wrong = read_projects(tmp_path)
    assert wrong == {}
    assert found["churn"].spec.policy == spec(policy={"freeze": [LAUNCH]}).policy


def test_a_key_that_stands_twice_is_refused_by_every_loader(tmp_path: Path) -> None:
    once = yaml.safe_dump(
        {"type": "release_platform.component.ModelRelease", "attributes": attributes()}, sort_keys=False
    )
    folder = tmp_path / "models_of_a_hasty_person"
    (folder / "churn").mkdir(parents=True)
    (folder / "churn" / "defs.yaml").write_text(f"{once}  policy: {{approvals: 2}}\n  policy: {{approvals: 0}}\n")
    found, wrong = read_projects(folder)
    assert found == {}
    assert "the key 'policy' stands twice" in str(wrong["churn"])
    with pytest.raises(ComponentTreeException) as refused:
        load_projects(folder)
    assert "the key 'policy' stands twice" in str(refused.value.__cause__)


def test_signature_and_parity_are_always_judged() -> None:
    assert [gate.name for gate in spec().every_gate] == ["auc", "signature", "parity"]


def test_an_own_gate_over_the_same_metric_replaces_the_standing_one() -> None:
    own = [*attributes()["gates"], {"name": "close", "metric": "parity_difference", "maximum": 1e-3}]
    assert [gate.name for gate in spec(gates=own).every_gate] == ["auc", "close", "signature"]


def test_the_plan_takes_what_clients_send_and_derives_the_rest() -> None:
    plan = spec().plan
    assert [column.name for column in plan.inputs] == ["age", "plan", "since"]
    assert plan.features == ("age", "plan", "hour")


def test_partition_keys_are_months_with_both_ends() -> None:
    months = spec(partitions={"column": "since", "start": "2013-11", "end": "2014-02"}).partitions
    assert months is not None
    assert months.keys_at(datetime(2026, 1, 1, tzinfo=UTC)) == ("2013-11", "2013-12", "2014-01", "2014-02")


def test_a_model_goes_all_at_once_unless_it_says_otherwise() -> None:
    assert spec().rollout == RolloutSpec(strategy=Strategy.ALL_AT_ONCE)
    assert spec(rollout={"strategy": "shadow_then_canary"}).rollout.strategy is Strategy.SHADOW_THEN_CANARY


def test_a_canary_has_the_steps_and_gates_that_the_yaml_says() -> None:
    rollout = spec(
        rollout={
            "strategy": "canary",
            "canary": [{"weight": 0.1, "minimum_requests": 500}, {"weight": 0.5}],
            "bake_s": 60,
            "gates": [{"metric": "errors", "margin": 0.005}, {"metric": "outcome", "outcome": "bought", "limit": 1}],
        }
    ).rollout
    assert [(stage.kind, stage.share, stage.minimum) for stage in rollout.stages] == [
        (StageKind.CANARY, 0.1, 500),
        (StageKind.CANARY, 0.5, 100),
        (StageKind.FULL, 1.0, 0),
    ]
    assert [(gate.name, gate.accepted) for gate in rollout.gates] == [("errors", 0.005), ("outcome_bought", 0.05)]
    assert rollout.stages[-1].minimum_s == 60


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        ({"strategy": "canray"}, "rollout.strategy: Input should be 'all_at_once', 'canary', 'shadow'"),
        ({"steps": []}, "rollout.steps: there is no such key"),
        ({"canary": [{}]}, "rollout.canary.0.weight: is missing"),
        ({"canary": [{"weight": 0.1}, {"weight": 1.0}]}, "rollout.canary.1: a canary step's weight is a share above 0"),
        ({"canary": [{"weight": 0.5}, {"weight": 0.1}]}, "rollout: a canary has steps, and their weights rise"),
        ({"canary": [{"weight": 0.5, "minimum_s": 60, "maximum_s": 60}]}, "rollout.canary.0: a canary step's minimum"),
        ({"shadow": {"share": 0}}, "rollout.shadow: the mirrored share is above 0"),
        ({"bake_s": float("nan")}, "rollout: bake_s is 0 or more"),
        ({"gates": [{"metric": "error"}]}, "rollout.gates.0.metric: Input should be 'errors', 'latency'"),
        ({"gates": [{"metric": "errors", "margin": 0}]}, "rollout.gates.0: rollout gate 'errors': margin is above 0"),
        ({"gates": [{"metric": "errors"}] * 2}, "rollout: two rollout gates judge 'errors'"),
        ({"strategy": "canary", "gates": [{"metric": "disagreement"}]}, "rollout: no blocking rollout gate judges the"),
    ],
)
def test_each_mistake_in_a_rollout_names_its_key(rollout: dict[str, Any], said: str) -> None:
    assert said in problem(rollout=rollout)


def test_a_version_is_taken_back_by_itself_only_where_the_yaml_says_so() -> None:
    assert spec().rollback_policy is None
    assert spec(rollback_policy={}).rollback_policy == RollbackSpec()
    assert "rollback_policy: record_minutes is 5 to 1440" in problem(rollback_policy={"record_minutes": 1})
    assert "rollback_policy.watch: there is no such key" in problem(rollback_policy={"watch": 1})


def test_drift_promises_one_false_alarm_a_month_until_the_yaml_says_otherwise() -> None:
    assert spec().drift.promise() == Budget()
    assert spec(drift={"budget": 0.5, "smallest": 0.1}).drift.promise() == Budget(per_month=0.5, smallest=0.1)
    assert spec(drift={"budget": 0.5}).drift.promise(budget=2.0).per_month == 2.0
    assert "drift: budget is above 0" in problem(drift={"budget": 0})
    assert "drift: keep_days is 32 to 3650" in problem(drift={"keep_days": 31})
    assert "drift: since_days is 1 to 366" in problem(drift={"since_days": 0})
    assert "drift.bugdet: there is no such key" in problem(drift={"bugdet": 1})


@pytest.mark.parametrize(
    ("freshness", "said"),
    [
        ({"raw_data": {"fail_s": 59}}, "fail_s is 60 or more"),
        ({"raw_data": {"fail_s": 120, "warn_s": 120}}, "below fail_s"),
        ({"raw_dta": {"fail_s": 120}}, "raw_data"),
    ],
)
def test_how_old_an_asset_may_become_is_a_time_of_an_asset_that_there_is(freshness: Any, said: str) -> None:
    assert said in problem(freshness=freshness)
    assert spec(freshness={"raw_data": {"fail_s": 60}}).freshness


@pytest.mark.parametrize("day", ["2026-13-01", "soon", "2026-1-1"])
def test_the_first_day_of_drift_is_a_day(day: str) -> None:
    assert "drift" in problem(drift={"first_day": day})
    assert spec(drift={"first_day": "2025-06-30"}).drift.first_day == "2025-06-30"


@pytest.mark.parametrize(
    ("written", "said"),
    [("1e-6", "1.0e-6"), ("1E5", "1.0e+5"), ("-2e3", "-2.0e+3"), ("1.5e6", "1.5e+6")],
)
def test_a_number_that_yaml_reads_as_text_is_named_with_what_to_write(written: str, said: str) -> None:
    estimator = yaml.safe_load(f"{{type: sklearn.linear_model.LogisticRegression, parameters: {{C: {written}}}}}")
    assert f"C: YAML reads {written} as text; write {said}" in problem(estimator=estimator)
    assert yaml.safe_load(said) == float(written)
    search = {"parameters": {"C": [0.5, written]}}
    assert f"C: YAML reads {written} as text; write {said}" in problem(search=search)


def test_a_parameter_may_be_text_that_is_no_number() -> None:
    estimator = {"type": "sklearn.linear_model.LogisticRegression", "parameters": {"solver": "lbfgs"}}
    assert spec(estimator=estimator).estimator.parameters == {"solver": "lbfgs"}
