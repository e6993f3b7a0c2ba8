"""Gates are proven to bite on real models; the proof is recorded, and the policy can demand it."""

from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.signing import KeyFolder
from release_platform.defs.selftest import selftest_evaluation, selftest_key
from release_platform.domain.attestation import SIGNATURE_TAG
from release_platform.domain.errors import Refused
from release_platform.domain.gate_spec import GateSpec
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.policy_spec import Selftest as Demand
from release_platform.domain.selftest import STOPPED, Selftest, Twin
from release_platform.gating.selftest import run_selftest
from release_platform.proofs import Proofs
from tests.integration.homes import Home, changed, example, open_home, release_in, why

MODEL = changed(example("diabetes"), policy=PolicySpec(selftest=Demand.REQUIRED))
NAME = MODEL.spec.name
SKIPPED = {
    "breast_cancer": {Twin.STALE_DATA, Twin.WORSE_SLICE},
    "digits": {Twin.STALE_DATA, Twin.WORSE_SLICE},
    "diabetes": {Twin.STALE_DATA, Twin.UNCALIBRATED},
    "flight_delay": set(),
}


@pytest.fixture(scope="module")
def proof() -> Selftest:
    return run_selftest(MODEL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with open_home(tmp_path_factory.mktemp("home") / "home") as opened:
        yield opened


@pytest.mark.parametrize("name", ["breast_cancer", "digits", "flight_delay"])
def test_the_gates_of_an_example_stop_every_spoilt_twin_and_let_the_clean_one_pass(name: str) -> None:
    found = run_selftest(example(name))
    assert found.passed, found.said
    assert {result.twin for result in found.results if result.skipped} == SKIPPED[name]
    stopped = {result.twin: set(result.stopped_by) for result in found.results}
    assert "plausible" in stopped[Twin.LEAKED_TARGET]
    assert "latency" in stopped[Twin.SLOW]
    assert "calibrated" in stopped[Twin.UNCALIBRATED]
    if name == "flight_delay":
        assert "fresh" in stopped[Twin.STALE_DATA]
        assert "each_airport" in stopped[Twin.WORSE_SLICE]
        assert found.n_rows == 40_000


def test_so_do_those_of_the_regression(proof: Selftest) -> None:
    assert proof.passed, proof.said
    assert {result.twin for result in proof.results if result.skipped} == SKIPPED[NAME]
    assert "each_sex" in next(r for r in proof.results if r.twin is Twin.WORSE_SLICE).stopped_by


def test_the_same_twins_come_of_the_same_seed(proof: Selftest) -> None:
    again = run_selftest(MODEL)
    steady = [[r for r in found.results if r.twin is not Twin.SLOW] for found in (proof, again)]
    assert steady[0] == steady[1]


def test_gates_that_cannot_fail_are_found_out() -> None:
    toothless = changed(MODEL, gates=(GateSpec(name="anything", metric="rmse", maximum=1e6),))
    found = run_selftest(toothless)
    assert not found.passed
    assert found.n_stopped == 0
    assert "leaked_target was stopped by no gate" in found.said


class TestRecord:
    def test_without_the_proof_nothing_is_registered(self, home: Home) -> None:
        run = home.release(MODEL)
        assert not run.success
        assert "the gates were never proven to stop spoilt models; run `release gate selftest diabetes`" in why(run)
        assert home.registrations(MODEL) == ()

    def test_one_that_was_planted_in_dagster_is_none(self, home: Home, proof: Selftest) -> None:
        home.instance.report_runless_asset_event(selftest_evaluation(MODEL, proof))
        run = home.materialize(MODEL, "registered_version", checks=False)
        assert "the gates were never proven to stop spoilt models" in why(run)

    def test_a_proof_that_failed_is_none(self, home: Home, proof: Selftest) -> None:
        worse = tuple(replace(result, stopped_by={}) for result in proof.results)
        home.services.releases.proofs.keep(replace(proof, results=worse))
        run = home.materialize(MODEL, "registered_version", checks=False)
        assert "stopped by no gate" in why(run)

    def test_with_it_the_version_carries_it_and_may_be_promoted(self, home: Home, proof: Selftest) -> None:
        home.services.releases.proofs.keep(proof)
        assert home.materialize(MODEL, "registered_version", checks=False).success
        (registered,) = home.registrations(MODEL)
        assert [gate.gate for gate in registered.gates if gate.metric == STOPPED and gate.passed] == ["selftest"]
        statement = home.services.keys.trusted().verify(registered.tags[SIGNATURE_TAG])
        assert statement["predicate"]["release"]["selftest"] == proof.digest
        releases = home.services.releases
        request = releases.request(NAME, version="1", actor="ada", reason="proven")
        assert releases.promote(request.request_id, MODEL.spec.policy).version == "1"

    def test_a_proof_that_somebody_took_away_since_promotes_nothing(self, home: Home) -> None:
        (registered,) = home.registrations(MODEL)
        proofs = home.services.releases.proofs
        assert proofs.unproven(registered) == ""
        stranger = Proofs(home.services.store, KeyFolder(home.folder / "strange"), SystemClock())
        assert "not trusted here" in stranger.unproven(registered)

    def test_a_version_from_before_the_demand_waits(self, home: Home) -> None:
        undemanding = changed(MODEL, policy=PolicySpec())
        assert home.release(undemanding).success
        releases = home.services.releases
        request = releases.request(NAME, version="2", actor="ada", reason="unproven")
        with pytest.raises(Refused, match="not proven to stop spoilt models when it was registered"):
            releases.promote(request.request_id, MODEL.spec.policy)

    def test_the_command_keeps_it_where_the_release_store_is_known(self, home: Home) -> None:
        done = release_in(home.folder, "gate", "selftest", NAME, "--json")
        assert done.exit_code == 0, done.err
        assert done.json["passed"]
        record = home.instance.get_latest_asset_check_evaluation_record(selftest_key(MODEL))
        assert record is not None
        assert record.event is not None
        kept = record.event.asset_check_evaluation
        assert kept is not None
        assert kept.metadata["selftest"].value == done.json
        assert "| leaked_target | plausible |" in str(kept.metadata["twins"].value)
        found = home.services.releases.proofs.find_newest(NAME)
        assert found is not None
        assert found.to_json() == done.json

    def test_the_check_runs_from_dagster_and_in_no_release(self, home: Home) -> None:
        location = home.definitions(MODEL)
        release = location.resolve_job_def(f"release_{NAME}")
        names = {node.name for node in release.nodes}
        assert not any("selftest" in name for name in names)
        job = dg.define_asset_job("proof", dg.AssetSelection.checks(selftest_key(MODEL)))
        run = dg.Definitions.merge(location, dg.Definitions(jobs=[job])).resolve_job_def("proof")
        before = home.services.store.selftests.all_of(NAME)
        assert run.execute_in_process(instance=home.instance).success
        assert len(home.services.store.selftests.all_of(NAME)) == len(before) + 1
