"""Whatever is made from the server's OpenAPI schema, by its rules and against them, is answered as the schema says."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from random import Random
from typing import Any

import httpx
import pytest
import requests
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.clock import SystemClock
from release_platform.adapters.model_package import load_package
from release_platform.domain.api_keys import Scope
from release_platform.domain.features import Input
from tests.fakes.packages import build_linear_classifier, build_typed_classifier, manifest_of
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until
from tests.fuzz.json_text import written
from tests.fuzz.oracle import check_problem
from tests.fuzz.protocols import PROTOCOLS, table_of
from tests.fuzz.seeds import CASES, SEED
from tests.fuzz.wire import Answer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Schemathesis and its libraries say about their own insides
    import schemathesis
    from schemathesis.specs.openapi import checks

MODELS = ("linear", "typed")
CHECKS = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]
WEIGHT = 10  # of a route that takes a body, against one that does not


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server: its address, an API key that may do everything, and what each of its models takes."""

    url: str
    key: str
    inputs: Mapping[str, Sequence[Input]]

    def get(self, path: str) -> Any:
        """Returns the JSON behind a path."""
        return httpx.get(self.url + path, headers={"x-api-key": self.key}).json()

    def good_body(self, path: str, model: str, choices: Random) -> Any:
        """Returns a body that a model takes by a route; None where the route is of no protocol that is known."""
        for protocol in PROTOCOLS.values():
            if path.endswith(protocol.ending):
                inputs = self.inputs[model]
                draft = choices.choice(protocol.forms)(inputs, table_of(inputs, choices), choices)
                return json.loads(written(draft.tree, choices))
        return None


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    folders = {
        "linear": build_linear_classifier(root / "linear", model="linear"),
        "typed": build_typed_classifier(root / "typed"),
    }
    inputs = {name: load_package(folder, manifest_of(folder)).plan.inputs for name, folder in folders.items()}
    _, key = ApiKeyFile(root / "keys.json", SystemClock()).create("fuzzer", list(Scope))
    versions = {(model, "7"): folder for model, folder in folders.items()}
    registry = FakeRegistry(versions, aliases={(model, "production"): "7" for model in MODELS})
    with running(settings_for(root / "cache", api_keys=root / "keys.json"), registry) as url:
        found = Served(url=url, key=key, inputs=inputs)
        until(lambda: len(found.get("/v1/models")["models"]) == len(MODELS))
        yield found


def test_every_reference_in_the_schema_resolves(served: Served) -> None:
    schema = served.get("/openapi.json")
    references = set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(schema)))
    assert references
    for reference in references:
        reduce(lambda value, name: value[name], reference.removeprefix("#/").split("/"), schema)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")  # Schemathesis does
@pytest.mark.timeout(7200)
def test_every_answer_is_one_that_the_schema_declares(served: Served) -> None:
    schema = schemathesis.openapi.from_dict(served.get("/openapi.json"))
    operations = [found.ok() for found in schema.get_all_operations()]
    weights = [WEIGHT if operation.method == "post" and operation.body else 1 for operation in operations]
    seen: Counter[tuple[str, int]] = Counter()
    with requests.Session() as session:
        for operation, weight in zip(operations, weights, strict=True):
            _try(operation, -(-CASES * weight // sum(weights)), served, session, seen)
    print(f"\n{seen.total():,} cases:", *(f"{path} {status}: {n:,};" for (path, status), n in sorted(seen.items())))
    assert seen.total() > CASES * 0.9
    assert {status for _, status in seen} >= {200, 400, 401, 404, 422}


def _try(
    operation: Any, n_cases: int, served: Served, session: requests.Session, seen: Counter[tuple[str, int]]
) -> None:
    made = st.one_of([operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode])

    @seed(SEED)
    @settings(max_examples=n_cases, database=None, suppress_health_check=list(HealthCheck))
    @given(case=made, number=st.integers(0, 2**32))
    def answers_as_declared(case: Any, number: int) -> None:
        choices = Random(number)
        model = _name_what_is_served(case, choices)
        if choices.random() < 0.3:
            body = served.good_body(operation.path, model, choices)
            case.body, case.media_type = (body, "application/json") if body else (case.body, case.media_type)
        key = served.key if choices.random() < 0.9 else "mrp_0123456789ab_x"
        response = case.call(base_url=served.url, session=session, headers={"x-api-key": key})
        case.validate_response(response, checks=CHECKS)
        seen[operation.path, response.status_code] += 1
        headers = tuple((name, values[0]) for name, values in response.headers.items())
        answer = Answer(status=response.status_code, headers=headers, body=response.content)
        assert answer.status < 500 or answer.status == 503, answer
        if answer.status >= 400:
            check_problem(answer)

    answers_as_declared()


def _name_what_is_served(case: Any, choices: Random) -> str:
    """Puts, in most cases, a model and a version into the path that are there, and returns the model."""
    model = choices.choice(MODELS)
    for name, value in (("model", model), ("version", "7")):
        if choices.random() < 0.8:
            for given_name in [one for one in case.path_parameters or {} if name in one]:
                case.path_parameters[given_name] = value
    return model
