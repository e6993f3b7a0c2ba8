"""registered_version: a version in the registry and in Staging, only if every blocking gate of exactly it passed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg

from release_platform.adapters.model_package import load_package
from release_platform.defs.naming import asset_key, link, stage_asset
from release_platform.defs.resources import Platform, latest_record
from release_platform.defs.retraining import started_by
from release_platform.defs.selftest import proof_of
from release_platform.domain.errors import GatesNotPassed, Refused, ReleaseError, Unavailable
from release_platform.domain.evidence import EvaluationReport
from release_platform.domain.features import as_column
from release_platform.domain.gate_spec import GateSpec
from release_platform.domain.gates import GateResult, judge_all
from release_platform.domain.identity import digest_of
from release_platform.domain.policy import Registration
from release_platform.domain.policy_spec import Selftest as Demand
from release_platform.domain.ports import VersionRecord
from release_platform.domain.records import Evaluated, RegisteredVersion
from release_platform.domain.selftest import SELFTEST, Selftest
from release_platform.model_card import kept_card
from release_platform.project import Project
from release_platform.proofs import FACT as SELFTEST_FACT
from release_platform.proofs import Proofs
from release_platform.references import FACT, keep_reference
from release_platform.services import Services

CODE = (
    "adapters/mlflow_registry.py",
    "adapters/version_tags.py",
    "releases.py",
    "domain/gates.py",
    "domain/lifecycle.py",
)


def build_registered_version(project: Project) -> dg.AssetsDefinition:
    """Returns the asset of the registered version."""
    spec = project.spec
    report_key = asset_key(spec.name, "evaluation_report")

    @stage_asset(
        project,
        "registered_version",
        kinds={"mlflow"},
        description="An immutable version with its manifest; the alias staging moves to it.",
        modules=CODE,
        attributes=("gates",),
        ins={"evaluation_report": dg.AssetIn(key=report_key)},
    )
    def registered_version(
        context: dg.AssetExecutionContext, evaluation_report: Any, platform: Platform
    ) -> dg.MaterializeResult[Any]:
        proof = required_proof(platform.services.releases.proofs, project)
        results = passed_gates(context.instance, spec.name, report_key, spec.every_gate, evaluation_report)
        registration = register_version(
            platform.services,
            context.run.run_id,
            evaluation_report,
            results if proof is None else (*results, proof.gate),
            keep=partial(reference_fact, platform.services),
            proof=proof,
        )
        key = digest_of([registration.report_digest, registration.digest])
        head = platform.services.releases.stage(
            registration,
            actor=platform.services.settings.acting,
            reason=f"every blocking gate passed{started_by(context.run, spec.name)}",
            key=key,
        )
        services, trained = platform.services, evaluation_report.trained
        services.tracking.log(
            trained.mlflow_run_id, tags={"release.version": registration.version, "release.digest": registration.digest}
        )
        return dg.MaterializeResult(
            value=RegisteredVersion(model=spec.name, version=registration.version, digest=registration.digest),
            data_version=dg.DataVersion(registration.digest),
            metadata={
                "version": registration.version,
                "digest": registration.digest,
                "in_staging": head.staging == registration.version,
                "model_version": link(
                    f"{services.settings.mlflow_url}/#/models/{spec.name}/versions/{registration.version}"
                ),
                "gates_passed": sum(gate.passed for gate in results),
                "files": dg.MetadataValue.json(trained.manifest.to_json()),
                "model_card": dg.MetadataValue.md(kept_card(services, project, registration.version)),
            },
        )

    return registered_version


def required_proof(proofs: Proofs, project: Project) -> Selftest | None:
    """Returns the selftest that the version is registered with, where the policy demands one; None where it does not.

    Raises:
        GatesNotPassed: The policy demands one, and none that passed was kept for these gates.
        IntegrityError: The newest one was not signed by a trusted key.
    """
    if project.spec.policy.selftest is not Demand.REQUIRED:
        return None
    proof, problem = proof_of(proofs, project)
    if proof is None or problem:
        raise GatesNotPassed(project.spec.name, [f"{SELFTEST}: {problem}"])
    return proof


def passed_gates(
    instance: dg.DagsterInstance, model: str, key: dg.AssetKey, gates: Sequence[GateSpec], evaluated: Evaluated
) -> tuple[GateResult, ...]:
    """Returns the results of all gates of exactly this evaluation, read again from the instance and judged again.

    Raises:
        GatesNotPassed: A blocking gate did not pass, was not run, or was run on another materialization.
        Refused: The evaluation is not the newest one any more.
    """
    newest, storage_id = latest_record(instance, key)
    if newest.report_digest != evaluated.report_digest:
        raise Refused(
            f"{model}: another evaluation was materialized meanwhile", remedy=f"run `release run {model}` again"
        )
    unmet = [
        f"{gate.name}: {problem}"
        for gate in gates
        if gate.blocking and (problem := _recorded_problem(instance, dg.AssetCheckKey(key, gate.name), storage_id))
    ]
    results = judge_all(tuple(gates), EvaluationReport.from_json(evaluated.report))
    named = {line.split(":", 1)[0] for line in unmet}
    unmet += [f"{r.gate}: {r.reason}" for r in results if r.blocking and not r.passed and r.gate not in named]
    if unmet:
        raise GatesNotPassed(model, unmet)
    return results


def _recorded_problem(instance: dg.DagsterInstance, key: dg.AssetCheckKey, storage_id: int) -> str:
    record = instance.get_latest_asset_check_evaluation_record(key)
    event = record.event.dagster_event if record and record.event else None
    found = event.event_specific_data if event else None
    if not isinstance(found, dg.AssetCheckEvaluation):
        return "the check was never run on this evaluation; run it first"
    target = found.target_materialization_data
    if target is None or target.storage_id != storage_id:
        return "the check was run on another evaluation; run it on this one"
    return "" if found.passed else str(found.description or "failed")


def _vouched(evaluated: Evaluated, results: tuple[GateResult, ...], proof: Selftest | None) -> dict[str, Any]:
    """Returns what the signature of a version vouches for beside its files."""
    trained = evaluated.trained
    return {
        "commit": trained.environment["git_commit"],
        "lock": trained.environment["lock"],
        "data_fingerprint": trained.features.raw_fingerprint,
        "model_digest": trained.model_digest,
        "report_digest": evaluated.report_digest,
        "code_version": trained.code_version,
        "gates": {result.gate: result.verdict.value for result in results},
        **({} if proof is None else {SELFTEST_FACT: proof.digest}),
    }


def register_version(
    services: Services,
    dagster_run_id: str,
    evaluated: Evaluated,
    results: tuple[GateResult, ...],
    *,
    keep: Callable[[Registration], Mapping[str, str]] = lambda _: {},
    proof: Selftest | None = None,
) -> Registration:
    """Registers what was evaluated as a version, records and signs it, and returns what is recorded.

    Repeating it with the same evaluation returns the record of the first time.

    Args:
        services: Where.
        dagster_run_id: The run that does it.
        evaluated: What was evaluated.
        results: Its gates.
        keep: Keeps something beside the version before it is signed, and returns what is vouched for of that.
        proof: The selftest that stands among its gates; None for none.
    """
    trained, model = evaluated.trained, str(evaluated.report["model"])
    baseline = evaluated.report["baseline"]
    record = services.registry.register(
        model=model,
        model_id=trained.model_id,
        run_id=trained.mlflow_run_id,
        manifest=trained.manifest,
        key=digest_of([evaluated.report_digest, trained.manifest.digest]),
        tags={
            "release.model_digest": trained.model_digest,
            "release.data_fingerprint": trained.features.raw_fingerprint,
            "release.report_digest": evaluated.report_digest,
            "release.code_version": trained.code_version,
            "release.git_commit": trained.environment["git_commit"],
            "dagster.run_id": dagster_run_id,
            "dagster.run_url": f"{services.settings.dagster_url}/runs/{dagster_run_id}",
        },
    )
    registration = Registration(
        model=model,
        version=record.version,
        digest=trained.manifest.digest,
        model_digest=trained.model_digest,
        report_digest=evaluated.report_digest,
        fingerprint=trained.features.raw_fingerprint,
        gates=results,
        baseline=None if baseline is None else baseline["version"],
        mlflow_run_id=trained.mlflow_run_id,
        dagster_run_id=dagster_run_id,
        code_version=trained.code_version,
        registered_at=record.created_at,
    )
    try:
        facts = {**_vouched(evaluated, results, proof), **keep(registration)}
        return services.releases.record(record, registration, facts)
    except ReleaseError:
        if not _may_be_recorded(services, record):
            services.registry.discard(model, record.version)  # nothing is left half-registered
        raise


def reference_fact(services: Services, registration: Registration) -> dict[str, str]:
    """Keeps the drift reference of a version that is not recorded yet, and returns its digest, to be signed.

    A version is no worse where that cannot be done: drift makes its reference anew then, and says so.
    """
    if services.store.find_registration(registration.model, registration.version) is not None:
        return {}  # what was signed first stays
    try:
        return {FACT: keep_reference(services, registration)}
    except ReleaseError as error:
        dg.get_dagster_logger().warning("the drift reference could not be kept: %s", error.problem)
        return {}


def _may_be_recorded(services: Services, record: VersionRecord) -> bool:
    """Whether the store has the version, or cannot say: a commit may have been done although its answer was lost."""
    try:
        known = services.releases.store.find_registration(record.model, record.version)
    except Unavailable:
        return True
    return known is not None and known.digest == record.digest


def build_servable_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check that the registry's files of the version load and answer as they did at registration."""
    key = asset_key(project.spec.name, "registered_version")

    @dg.asset_check(
        asset=key,
        name="servable",
        description="The version is fetched from the registry, verified, loaded, and answers its golden inputs.",
    )
    def servable(registered_version: Any, platform: Platform) -> dg.AssetCheckResult:
        with TemporaryDirectory() as folder:
            record = platform.services.registry.fetch(project.spec.name, registered_version.version, Path(folder))
            package = load_package(Path(folder), record.manifest)
        inputs = package.golden["inputs"]
        answers = package.predict({c.name: as_column(c, inputs[c.name]) for c in package.plan.inputs})
        equal = answers.to_json() == package.golden["answers"] and record.digest == registered_version.digest
        return dg.AssetCheckResult(
            passed=equal,
            metadata={"digest": record.digest, "engine": package.engine_name, "golden_rows": len(answers.values)},
        )

    return servable
