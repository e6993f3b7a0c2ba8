"""The YAML of a model: every mistake is one clear error that names file, field and remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from release_platform.domain.errors import SpecError
from release_platform.domain.spec import ModelSpec
from release_platform.project import parse_spec

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
    assert months.keys == ("2013-11", "2013-12", "2014-01", "2014-02")
