"""Which calls of MLflow the proxy passes on: every route of the installed MLflow is and the lists say so."""

import re

import pytest

from deploy.mlflow_rules import DECISIONS, RULES, Call, decisions, pattern, rules, undecided
from tests.fakes.mlflow_calls import DECIDED, path_of, present, word_of

LINES = {word: path.read_text().splitlines() for word, path in RULES.items()}


def passed_by(word: str, call: str) -> bool:
    return any(re.search(line, call) for line in LINES[word])


def test_the_installed_mlflow_has_the_routes_that_were_decided_and_no_others() -> None:
    assert undecided(present(), DECIDED) == []
    assert len(present()) > 400
    for family in ("/graphql", "/gateway/", "/ajax-api/3.0/mlflow/assistant", "/api/2.0/mlflow/webhooks"):
        assert any(template.startswith(family) for _, template in present())


@pytest.mark.parametrize("new", [("GET", "/api/9.0/new"), ("DELETE", "/health"), ("GET", "/gateway/new/<x>")])
def test_a_route_that_nobody_decided_is_named_and_refused(new: Call) -> None:
    assert undecided([*present(), new], DECIDED) == [new]
    assert not [word for word in RULES if passed_by(word, f"{new[0]} {path_of(new)}")]


@pytest.mark.parametrize("word", RULES)
def test_the_lists_of_the_proxy_are_those_of_the_installed_mlflow(word: str) -> None:
    made = rules(present(), decisions(DECISIONS.read_text()), word)
    assert RULES[word].read_text() == made, "run `python deploy/mlflow_rules.py` and look at what changed"


def test_each_call_is_passed_as_decided_and_as_nothing_else() -> None:
    for call in present():
        passed = [word for word in RULES if passed_by(word, f"{call[0]} {path_of(call)}")]
        assert passed == [word for word in RULES if word == word_of(call)], call


def test_nothing_that_changes_reads_but_the_searches_that_are_named() -> None:
    assert {template for (method, template), word in DECIDED.items() if word == "read" and method != "GET"} == {
        "/api/2.0/mlflow/experiments/search",
        "/api/2.0/mlflow/experiments/search-datasets",
        "/api/2.0/mlflow/logged-models/search",
        "/api/2.0/mlflow/registered-models/get-latest-versions",
        "/api/2.0/mlflow/runs/search",
        "/api/3.0/mlflow/datasets/search",
        "/api/3.0/mlflow/issues/search",
        "/api/3.0/mlflow/traces/batchGetInfos",
        "/api/3.0/mlflow/traces/calculate-filter-correlation",
        "/api/3.0/mlflow/traces/metrics",
        "/api/3.0/mlflow/traces/search",
        "/graphql",
    }


def test_graphql_still_only_reads() -> None:
    present()  # imports the server without its warnings
    from mlflow.server.graphql.graphql_schema_extensions import schema

    # One route for everything in it. Its mutations are two searches, and an echo for MLflow's own tests.
    mutations = set(schema.graphql_schema.mutation_type.fields)
    assert mutations == {"mlflowSearchDatasets", "mlflowSearchRuns", "testMutation"}


ONE, MANY = re.compile(pattern("<x>")), re.compile(pattern("<path:x>"))


@pytest.mark.parametrize(
    "part", ["a", "m-0a1b", "a b".replace(" ", "%20"), "caf%C3%A9", "v1.0", "a:b", "...", ".a", "a..b"]
)
def test_what_names_hold_is_passed(part: str) -> None:
    assert ONE.fullmatch(part)
    assert MANY.fullmatch(f"{part}/{part}")


STRANGE = r"""
. .. %2e%2e %2E a%2fb a%2Fb a%5cb a%252e a%00 a%0a a%7f a;b a\b é a?b a#b % %2 %zz a% a%u002e
"""


@pytest.mark.parametrize("part", ["", "a b", "a\n", *STRANGE.split()])
def test_what_a_server_may_read_as_another_path_is_not(part: str) -> None:
    assert not ONE.fullmatch(part)
    assert not MANY.fullmatch(part)
    assert not MANY.fullmatch(f"a/{part}/b")
    assert not re.search(f"^GET /x/{MANY.pattern}$", f"GET /x/a/{part}/b")


@pytest.mark.parametrize("line", ["allow GET /x", "read GET", "read GET /a b", "read GET /health\nwrite GET /health"])
def test_a_decision_that_cannot_be_read_is_an_error(line: str) -> None:
    with pytest.raises(ValueError):
        decisions(line)


def test_a_route_of_a_kind_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(ValueError, match="not understood"):
        pattern("/a(b)")
