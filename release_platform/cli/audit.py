"""`release audit`: does every system say the same, and does every invariant hold?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json
from release_platform.domain.errors import IntegrityError

if TYPE_CHECKING:
    from release_platform.defs.audit import Audit
    from release_platform.services import Services


def audit(
    model: Annotated[str | None, typer.Argument(help="Name of the model; default: all.")] = None, json: Json = False
) -> None:
    """Compare Dagster, MLflow, the artefacts, the release store and the live servers, and check every invariant.

    It changes nothing. Every version is fetched, verified and loaded. The same is the asset check `invariants_hold` on
    production_version, which Dagster runs every hour. Exit code 7: something was found.

    Examples:

        release audit

        release audit flight_delay --json
    """
    from release_platform.cli import running
    from release_platform.defs.audit import audit_model

    if model is not None:
        running.project(model)
    with running.instance() as instance:
        audits = []
        for name in [model] if model else _names(running.services()):
            err.print(f"  {name} ...", markup=False)
            audits.append(audit_model(running.services(), instance, name))
    if json:
        show_json([_as_json(one) for one in audits])
    else:
        _show(audits)
    found = [finding.sentence for one in audits for finding in one.findings]
    if found:
        raise IntegrityError(
            "\n".join(found), remedy="docs/audit.md says of each what it means; restore what is gone from a backup"
        )
    if not json:
        out.print("no fault")


def _names(services: "Services") -> list[str]:
    """Returns every model that the release store or the registry knows: either may have lost it."""
    return sorted({*services.store.models(), *services.registry.models()})


def _as_json(one: "Audit") -> dict[str, object]:
    return {
        "model": one.model,
        "versions": one.n_versions,
        "moves": one.n_moves,
        "findings": [{"invariant": f.invariant, "subject": f.subject, "problem": f.problem} for f in one.findings],
        "not_compared": one.not_compared,
    }


def _show(audits: Sequence["Audit"]) -> None:
    for one in audits:
        out.print(f"{one.model}: {one.n_versions} version(s), {one.n_moves} move(s)", markup=False)
        for problem in one.not_compared:
            out.print(f"  not compared: {problem}", markup=False, soft_wrap=True)
