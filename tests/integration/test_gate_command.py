"""`release gate` on real models: alone, beside the version in Production, and of a version by its record."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from junitparser import JUnitXml

from release_platform.adapters.mlflow_client import mlflow_client
from release_platform.definitions import EXAMPLES
from release_platform.defs.promotion import production_materialization
from release_platform.domain.errors import IntegrityError
from release_platform.gating.changes import NO_CHANGES_KNOWN, changes_between
from release_platform.gating.tree import judge_tree
from release_platform.gating.version import judge_version
from release_platform.model_card import follow_cards, kept_card
from tests.integration.homes import Command, Home, changed, example, open_home, project_folder, warm_release, with_gate

MODEL = example("diabetes")
NAME = MODEL.spec.name


@pytest.fixture(scope="module")
def warm() -> Iterator[Command]:
    with warm_release() as run:
        yield run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with open_home(tmp_path_factory.mktemp("home") / "home") as opened:
        assert opened.release(MODEL).success
        releases = opened.services.releases
        request = releases.request(NAME, version="1", actor="ada", reason="first")
        releases.promote(request.request_id, MODEL.spec.policy)
        yield opened


def model_of_a_team(models: Path, *, minimum: float) -> Path:
    """Writes a copy of the small example with another limit, under another name."""
    described = yaml.safe_load((EXAMPLES / NAME / "defs.yaml").read_text())
    described["attributes"]["name"] = "ours"
    next(gate for gate in described["attributes"]["gates"] if gate["name"] == "explains")["minimum"] = minimum
    return project_folder(models, "ours", yaml.safe_dump(described, sort_keys=False))


class TestAlone:
    def test_it_needs_no_home_and_leaves_none(self, warm: Command, tmp_path: Path) -> None:
        files = {name: tmp_path / "out" / name for name in ("gates.xml", "summary.md", "gates.sarif")}
        options = ["--junit", "gates.xml", "--markdown", "summary.md", "--sarif", "gates.sarif"]
        options = [str(files[option]) if option in files else option for option in options]
        done = warm(tmp_path / "home", "gate", NAME, *options, cwd=tmp_path)
        assert done.exit_code == 0, done.err
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert "passed" in done.out
        assert JUnitXml.fromstring(files["gates.xml"].read_bytes()).failures == 0
        assert "compared with nothing" in files["summary.md"].read_text()
        (run,) = json.loads(files["gates.sarif"].read_text())["runs"]
        assert run["results"] == []  # what was compared with nothing is no finding

    def test_a_gate_that_does_not_pass_is_exit_code_4_in_every_file(self, warm: Command, tmp_path: Path) -> None:
        place = model_of_a_team(tmp_path / "models", minimum=0.99)
        options = ["--junit", "gates.xml", "--sarif", "gates.sarif", "--json"]
        done = warm(tmp_path / "home", "gate", "ours", *options, cwd=tmp_path)
        assert done.exit_code == 4, done.err
        assert [gate["gate"] for gate in done.json["gates"] if gate["verdict"] == "failed"] == ["explains"]
        assert JUnitXml.fromstring((tmp_path / "gates.xml").read_bytes()).failures == 1
        (run,) = json.loads((tmp_path / "gates.sarif").read_text())["runs"]
        failed = next(result for result in run["results"] if result["ruleId"] == "explains")
        line = failed["locations"][0]["physicalLocation"]["region"]["startLine"]
        assert (place / "defs.yaml").read_text().splitlines()[line - 1].strip() == "- name: explains"

    def test_data_that_cannot_be_used_is_another_exit_code_and_an_error_in_the_files(
        self, warm: Command, tmp_path: Path
    ) -> None:
        place = model_of_a_team(tmp_path / "models", minimum=0.3)
        described = (place / "defs.yaml").read_text()
        (place / "defs.yaml").write_text(described.replace("minimum_rows: 300", "minimum_rows: 30000"))
        assert "minimum_rows: 30000" in (place / "defs.yaml").read_text()
        done = warm(tmp_path / "home", "gate", "ours", "--junit", "gates.xml", "--markdown", "s.md", cwd=tmp_path)
        assert done.exit_code == 3
        assert JUnitXml.fromstring((tmp_path / "gates.xml").read_bytes()).errors == 1
        assert "could not be judged" in (tmp_path / "s.md").read_text()


class TestBesideProduction:
    def test_the_same_model_changes_nothing_and_every_metric_is_compared(self, home: Home) -> None:
        found = judge_tree(MODEL, home.services)
        assert found.passed
        assert found.compared_with == "Production version 1"
        assert found.report.baseline is not None
        assert set(found.report.baseline.comparisons) == set(MODEL.spec.every_metric)
        assert (found.changes.data, found.changes.code, found.changes.parameters) == ((), (), ())

    def test_nothing_is_registered_and_nothing_is_left(self, home: Home) -> None:
        before = sorted(str(path) for path in (home.folder / "snapshots").iterdir())
        judge_tree(MODEL, home.services)
        assert len(home.registrations(MODEL)) == 1
        assert sorted(str(path) for path in (home.folder / "snapshots").iterdir()) == before

    def test_a_worse_model_is_named_with_the_key_that_made_it(self, home: Home) -> None:
        spec = MODEL.spec
        worse = changed(MODEL, estimator=type(spec.estimator)(type=spec.estimator.type, parameters={"alpha": 1e5}))
        found = judge_tree(worse, home.services)
        assert {gate.gate for gate in found.failed} >= {"explains", "no_worse"}
        assert "estimator.parameters.alpha: 1.0 -> 100000.0" in (found.changes.parameters or ())

    def test_the_gates_of_a_registration_are_those_of_the_command(self, home: Home) -> None:
        """Whatever passes here passes in the release, and with the same numbers."""
        (registered,) = home.registrations(MODEL)
        ours = {gate.gate: gate for gate in judge_tree(MODEL, None).gates}
        for gate in registered.gates:
            if gate.gate not in {"no_worse", "latency"}:
                assert ours[gate.gate] == gate


class TestVersion:
    def test_a_version_is_judged_by_its_record_with_the_gates_of_now(self, home: Home) -> None:
        assert judge_version(MODEL, home.services, "1").passed
        stricter = with_gate(MODEL, name="dream", metric="r2", minimum=0.9)
        assert [gate.gate for gate in judge_version(stricter, home.services, "1").failed] == ["dream"]

    def test_the_command_trains_nothing(self, warm: Command, home: Home) -> None:
        done = warm(home.folder, "gate", NAME, "--version", "1", "--json")
        assert done.exit_code == 0, done.err
        assert done.json["subject"] == "version 1, by its recorded report"
        assert warm(home.folder, "gate", NAME, "--version", "9").exit_code == 5

    def test_a_report_that_was_edited_is_refused(self, home: Home, tmp_path: Path) -> None:
        (file,) = (home.folder / "artifacts").rglob("evaluation/report.json")
        kept = shutil.copy(file, tmp_path / "report.json")
        file.write_text(file.read_text().replace('"r2"', '"r3"'))
        try:
            with pytest.raises(IntegrityError, match="is not the one that was registered"):
                judge_version(MODEL, home.services, "1")
            file.unlink()
            with pytest.raises(IntegrityError, match="is not in MLflow any more"):
                judge_version(MODEL, home.services, "1")
        finally:
            shutil.copy(kept, file)

    def test_a_report_of_an_mlflow_run_that_is_gone_is_named(self, home: Home) -> None:
        client = mlflow_client(home.services.tracking.uri)
        run_id = home.registrations(MODEL)[0].mlflow_run_id
        client.delete_run(run_id)
        try:
            assert judge_version(MODEL, home.services, "1").passed
        finally:
            client.restore_run(run_id)


class TestCard:
    def test_a_registration_leaves_the_card_beside_the_report_and_outside_of_the_package(self, home: Home) -> None:
        (registered,) = home.registrations(MODEL)
        (folder,) = (home.folder / "artifacts").rglob("card")
        assert {file.name for file in folder.iterdir()} == {"card.html", "card.md", "bom.cdx.json"}
        assert (folder.parent / "evaluation" / "report.json").exists()
        shown = home.materialization(MODEL, "registered_version").metadata
        assert "card" not in json.dumps(shown["files"].value)
        assert str(shown["model_card"].value).startswith(f"# {NAME} version 1\n")
        assert json.loads((folder / "bom.cdx.json").read_text())["metadata"]["component"]["version"] == "1"
        assert registered.digest in (folder / "card.html").read_text()

    def test_a_card_that_is_asked_for_later_has_what_happened_since(self, warm: Command, home: Home) -> None:
        (folder,) = (home.folder / "artifacts").rglob("card")
        assert "| ada |" not in (folder / "card.md").read_text()
        done = warm(home.folder, "card", NAME)
        assert done.exit_code == 0, done.err
        assert "Stands: production" in done.out
        assert "| promoted | ada | first |" in done.out

    def test_a_move_writes_it_anew_in_mlflow_and_on_the_asset(self, home: Home) -> None:
        (folder,) = (home.folder / "artifacts").rglob("card")
        row = home.services.store.ledger(NAME)[-1]
        shown = production_materialization(row, home.services, None, [], MODEL).metadata["model_card"].value
        written = (folder / "card.md").read_text()
        assert shown == written
        assert "Stands: production" in written
        assert "| promoted | ada | first |" in written
        assert kept_card(home.services, MODEL, "1") == written
        assert follow_cards(home.services, MODEL) == {}, "nothing changed since"

    def test_what_cannot_be_written_fails_no_move(self, home: Home) -> None:
        assert kept_card(home.services, MODEL, "9").startswith("could not be kept: ")

    def test_each_form_goes_to_its_file(self, warm: Command, home: Home, tmp_path: Path) -> None:
        options = ["--html", "c.html", "--markdown", "c.md", "--bom", "b.json"]
        assert warm(home.folder, "card", NAME, "--version", "1", *options, cwd=tmp_path).exit_code == 0
        assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")
        assert (tmp_path / "c.md").read_text().startswith(f"# {NAME} version 1\n")
        assert json.loads((tmp_path / "b.json").read_text())["bomFormat"] == "CycloneDX"
        assert warm(home.folder, "card", NAME, "--version", "9", cwd=tmp_path).exit_code == 5


class TestASecondVersion:
    """Comes last: the tests above are of one version."""

    def test_what_changed_is_said_since_the_version_that_it_was_compared_with(self, home: Home) -> None:
        assert home.release(changed(MODEL, estimator=replace(MODEL.spec.estimator, parameters={"alpha": 1.1}))).success
        found = judge_version(MODEL, home.services, "2")
        assert found.compared_with == "Production version 1"
        assert (found.changes.data, found.changes.code) == ((), ())
        assert found.changes.parameters == ("estimator.parameters.alpha: 1.0 -> 1.1",)
        assert judge_version(MODEL, home.services, "1").changes == NO_CHANGES_KNOWN, "it was compared with nothing"

    def test_of_a_version_whose_record_is_gone_nothing_is_known(self, home: Home) -> None:
        assert changes_between(home.services, MODEL, "9", "2") == NO_CHANGES_KNOWN
