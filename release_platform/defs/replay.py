"""The check `replay` on registered_version: recorded requests, answered by Production and by the version in Staging."""

from typing import Any

import dagster as dg

from release_platform.defs.naming import asset_key, numbers
from release_platform.defs.resources import Platform
from release_platform.domain.errors import ReleaseError
from release_platform.domain.gates import GateResult
from release_platform.domain.replay import Replay, judge_replay, said_of
from release_platform.domain.replay_spec import ReplaySpec
from release_platform.project import Project

CHECK = "replay"


def replay_key(project: Project) -> dg.AssetCheckKey:
    """Returns the key of a model's check."""
    return dg.AssetCheckKey(asset_key(project.spec.name, "registered_version"), CHECK)


def build_replay_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check; it replays when it is executed, and stops no run: a promotion asks for what it kept."""
    key = replay_key(project)

    @dg.asset_check(
        asset=key.asset_key,
        name=key.name,
        description="Recorded requests, answered by the version in Production and by the one in Staging: refused rows, "
        "changed answers and times are within policy.replay. With too few rows it does not pass.",
    )
    def replay(platform: Platform) -> dg.AssetCheckResult:
        name, services = project.spec.name, platform.services
        head = services.store.head(name)
        if head.production is None or head.staging is None:
            where = "Production" if head.production is None else "Staging"
            return _checked(head.production is None, f"nothing is in {where}, so there is nothing to replay")
        try:
            found = services.replays.run(name)
        except ReleaseError as error:  # nothing is kept, so nothing is promoted on it
            return _checked(False, f"{error.problem}; {error.remedy}")
        gates = judge_replay(found, project.spec.policy.replay or ReplaySpec())
        said = "; ".join(said_of(gates, found))
        return _checked(all(gate.passed for gate in gates), said, _metadata(found, gates))

    return replay


def _checked(passed: bool, said: str, metadata: dict[str, Any] | None = None) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, severity=dg.AssetCheckSeverity.WARN, description=said, metadata=metadata or {}
    )


def _metadata(found: Replay, gates: tuple[GateResult, ...]) -> dict[str, Any]:
    return {
        "version": found.candidate.version,
        "production_version": found.stable.version,
        "digest": found.digest,
        "rows": found.n_rows,
        "refused": dg.MetadataValue.json(dict(found.candidate.refused)),
        "report": dg.MetadataValue.json(found.to_json()),
        **numbers({gate.gate: gate.value for gate in gates}),
    }
