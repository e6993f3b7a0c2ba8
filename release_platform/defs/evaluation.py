"""evaluation_report and the quality gates: what was measured, and one blocking asset check for each rule over it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from release_platform.adapters.mlflow_registry import fetch_files
from release_platform.adapters.mlflow_tracking import REPORT_DIGEST_TAG, REPORT_FOLDER
from release_platform.adapters.model_package import ModelPackage, load_package
from release_platform.defs.naming import asset_key, link, numbers, stage_asset
from release_platform.defs.resources import Platform
from release_platform.defs.training import run_url
from release_platform.domain.evidence import EvaluationReport
from release_platform.domain.gates import GateResult, judge, judge_all
from release_platform.domain.identity import Manifest
from release_platform.domain.records import Evaluated
from release_platform.gating.tree import find_production
from release_platform.pipeline.assessment import Assessment, assess
from release_platform.pipeline.features import read_features
from release_platform.project import Project
from release_platform.services import Services

CODE = (
    "pipeline/assessment.py",
    "pipeline/evaluation.py",
    "pipeline/measures.py",
    "pipeline/bootstrap.py",
    "pipeline/plots.py",
    "domain/metrics.py",
    "domain/evidence.py",
    "domain/signature.py",
)


def build_evaluation_report(project: Project) -> dg.AssetsDefinition:
    """Returns the asset of the evaluation report, measured on the held-out rows."""
    spec = project.spec

    @stage_asset(
        project,
        "evaluation_report",
        kinds={"scikitlearn", "mlflow"},
        description="Metrics with intervals, slices, comparison with Production, plots.",
        modules=CODE,
        attributes=("metrics", "slices", "gates", "seed"),
        ins={"trained_model": dg.AssetIn(key=asset_key(spec.name, "trained_model"))},
    )
    def evaluation_report(
        context: dg.AssetExecutionContext, trained_model: Any, platform: Platform
    ) -> dg.MaterializeResult[Any]:
        services = platform.services
        package = _load_logged(services, trained_model.model_id, trained_model.manifest)
        table = read_features(services.snapshots.read(trained_model.features.snapshot))
        production = find_production(services, spec.name)
        found = assess(project, trained_model, package, table, production, services.snapshots)
        run_id = services.tracking.open_run(spec.name, context.run.run_id, {"dagster.job": context.job_name})
        _log(services, project, context, run_id, trained_model.mlflow_run_id, found)
        report = found.report.to_json()
        record = Evaluated(trained=trained_model, report=report, report_digest=found.report.digest)
        return dg.MaterializeResult(
            value=record,
            data_version=dg.DataVersion(found.report.digest),
            metadata={
                **numbers({name: m.value for name, m in found.report.quality.items()}),
                **numbers(found.report.operational),
                "metrics": dg.MetadataValue.md(found.markdown),
                **{f"plot_{name}": dg.MetadataValue.md(image) for name, image in found.thumbnails.items()},
                "report_digest": found.report.digest,
                "mlflow_run": link(run_url(services, trained_model)),
                "held_out_rows": found.report.n_rows,
                "compared_with": production.version if production else "nothing: first release",
            },
        )

    return evaluation_report


def _load_logged(services: Services, model_id: str, manifest: Manifest) -> ModelPackage:
    with tempfile.TemporaryDirectory() as folder:
        location = services.tracking.package_location(model_id)
        fetch_files(location, manifest, Path(folder), services.tracking.uri, of=f"logged model {model_id}")
        return load_package(Path(folder), manifest)


def _log(
    services: Services,
    project: Project,
    context: dg.AssetExecutionContext,
    run_id: str,
    training_run_id: str,
    found: Assessment,
) -> None:
    gates = judge_all(project.spec.every_gate, found.report)
    with tempfile.TemporaryDirectory() as folder:
        found.write(Path(folder), gates)
        services.tracking.log_files(run_id, Path(folder), REPORT_FOLDER)
    services.tracking.log(
        run_id,
        metrics=numbers({name: m.value for name, m in found.report.quality.items()} | dict(found.report.operational)),
        tags={
            REPORT_DIGEST_TAG: found.report.digest,
            "release.evaluates_run": training_run_id,
            **{f"gate.{gate.gate}": f"{gate.verdict}: {gate.reason}"[:4000] for gate in gates},
        },
    )


def build_gates(project: Project) -> dg.AssetChecksDefinition:
    """Returns one asset check for each gate, over the evaluation report; each can be run on its own."""
    key = asset_key(project.spec.name, "evaluation_report")
    gates = {gate.name: gate for gate in project.spec.every_gate}

    @dg.multi_asset_check(
        name=f"{project.spec.name}_gates",
        specs=[
            dg.AssetCheckSpec(
                gate.name,
                asset=key,
                blocking=gate.blocking,
                description=f"{gate.metric}: {gate.described}",
                metadata={"metric": gate.metric},
            )
            for gate in gates.values()
        ],
        ins={"evaluation_report": dg.AssetIn(key=key)},
        can_subset=True,
    )
    def quality_gates(
        context: dg.AssetCheckExecutionContext, evaluation_report: Evaluated
    ) -> Iterator[dg.AssetCheckResult]:
        report = EvaluationReport.from_json(evaluation_report.report)
        for selected in sorted(context.selected_asset_check_keys, key=lambda key: list(gates).index(key.name)):
            yield _check_result(selected, judge(gates[selected.name], report), evaluation_report.report_digest)

    return quality_gates


def _check_result(key: dg.AssetCheckKey, result: GateResult, report_digest: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR if result.blocking else dg.AssetCheckSeverity.WARN,
        description=result.reason,
        metadata={
            "verdict": result.verdict.value,
            "reason": result.reason,
            "direction": result.direction,
            "report_digest": report_digest,
            **numbers({"value": result.value, "limit": result.limit}),
        },
    )
