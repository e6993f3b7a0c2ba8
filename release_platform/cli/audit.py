"""`release audit`: does every system say the same, and does every invariant hold?"""

from typing import Annotated

import typer

from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json
from release_platform.domain.errors import IntegrityError


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
    found, said = [], []
    with running.instance() as instance:
        for name in [model] if model else running.services().store.models():
            err.print(f"  {name} ...", markup=False)
            seen, findings, away = audit_model(running.services(), instance, name)
            found += findings
            said.append(
                {
                    "model": name,
                    "versions": len(seen.store.present),
                    "moves": len(seen.store.rows),
                    "findings": [
                        {"invariant": f.invariant, "subject": f.subject, "problem": f.problem} for f in findings
                    ],
                    "not_compared": away,
                }
            )
    if json:
        show_json(said)
    else:
        for one in said:
            out.print(f"{one['model']}: {one['versions']} version(s), {one['moves']} move(s)", markup=False)
            for problem in one["not_compared"]:  # type: ignore[attr-defined]
                out.print(f"  not compared: {problem}", markup=False, soft_wrap=True)
    if found:
        raise IntegrityError(
            "\n".join(finding.sentence for finding in found),
            remedy="find out who did it and restore what is gone from a backup; see docs/audit.md",
        )
    if not json:
        out.print("no fault")
