"""Every mutation of a Dagster web server, called with arguments that are as right as its schema can tell."""

from dataclasses import dataclass
from typing import Any

from tests.fakes.dagster_stack import ask

FILLED: dict[str, Any] = {
    "repositoryLocationName": "release_platform",
    "repositoryName": "__repository__",
    "jobName": "approve",
    "pipelineName": "approve",
    "name": "promotion_sensor",
    "sensorName": "promotion_sensor",
    "scheduleName": "none",
    "mode": "default",
    "metadata": "{}",
    "runConfigData": {},
}
MANY = {
    "launchMultipleRuns": "LaunchMultipleRunsResult { launchMultipleRunsResult",
    "terminateRuns": "TerminateRunsResult { terminateRunResults",
}
"""The mutations that answer with one result of each, and where these are."""
KINDS = """query { __schema {
  mutationType { fields { name args { name type { ...T } } type { ...T } } }
  types { kind name inputFields { name type { ...T } } enumValues { name } possibleTypes { name } } } }
fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }"""


@dataclass(frozen=True)
class Schema:
    """The schema of a web server."""

    types: dict[str, Any]
    mutations: dict[str, Any]

    def value(self, of: dict[str, Any], name: str, depth: int = 0) -> Any:
        """Returns a value of an input type that is as right as can be."""
        match of["kind"]:
            case "NON_NULL":
                return self.value(of["ofType"], name, depth)
            case "LIST":
                return [self.value(of["ofType"], name, depth)]
            case "ENUM":
                return self.types[of["name"]]["enumValues"][0]["name"]
            case "INPUT_OBJECT":
                fields = self.types[of["name"]]["inputFields"]
                needed = [field for field in fields if field["type"]["kind"] == "NON_NULL" or field["name"] in FILLED]
                return {field["name"]: self.value(field["type"], field["name"], depth + 1) for field in needed}
            case _:
                if name in FILLED:
                    return FILLED[name]
                return {"Int": 1, "Boolean": True, "Float": 1.0}.get(of["name"], "none")

    def call(self, name: str) -> tuple[str, dict[str, Any]]:
        """Returns a call of a mutation with all its arguments, and their values."""
        args = [one for one in self.mutations[name]["args"] if one["name"] != "executionParams" or "Reex" not in name]
        answer = self.types[_innermost(self.mutations[name]["type"])]
        error = any(one["name"] == "PythonError" for one in answer["possibleTypes"] or ())
        told = "{ __typename ... on PythonError { message } }" if error else "{ __typename }"
        told = "" if answer["kind"] == "SCALAR" else told
        if name in MANY:
            told = f"{{ __typename ... on {MANY[name]} {{ __typename }} }} }}"
        declared = ", ".join(f"${one['name']}: {_written(one['type'])}" for one in args)
        passed = ", ".join(f"{one['name']}: ${one['name']}" for one in args)
        head, arguments = (f"({declared})", f"({passed})") if args else ("", "")
        return (
            f"mutation{head} {{ {name}{arguments} {told} }}",
            {one["name"]: self.value(one["type"], one["name"]) for one in args},
        )


def _innermost(of: dict[str, Any]) -> str:
    return _innermost(of["ofType"]) if of.get("ofType") else str(of["name"])


def _written(of: dict[str, Any]) -> str:
    match of["kind"]:
        case "NON_NULL":
            return f"{_written(of['ofType'])}!"
        case "LIST":
            return f"[{_written(of['ofType'])}]"
        case _:
            return str(of["name"])


def read_schema(url: str) -> Schema:
    """Returns the schema of a web server."""
    found = ask(url, KINDS)["data"]["__schema"]
    mutations = {field["name"]: field for field in found["mutationType"]["fields"]}
    return Schema({one["name"]: one for one in found["types"]}, mutations)
