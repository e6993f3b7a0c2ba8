"""`release gc` and `release delete`: room, without ever losing what a release may need."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from release_platform.cli.console import err, out, show_json, show_table
from release_platform.cli.options import Actor, Json, Model, Reason
from release_platform.domain.errors import Refused


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Remove it.")] = False,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Remove versions, with their files, and data snapshots that nothing reaches and no policy keeps.

    Kept are: what is or was in Production, what is in Staging or asked for, the newest versions and the young ones as
    each policy says (`keep_versions`, `keep_days`), and the data of every version that is kept.

    Examples:

        release gc --dry-run

        release gc --run
    """
    from release_platform.cli import running
    from release_platform.defs.garbage import needed_snapshots
    from release_platform.garbage import Collector

    if dry_run == run:
        raise Refused("say whether to remove", remedy="`release gc --dry-run` shows what `release gc --run` removes")
    services = running.services()
    policies = {name: project.spec.policy for name, project in running.projects().items()}
    collector = Collector(services.releases, services.tracking, services.snapshots, policies)
    with running.instance() as instance:
        plan = collector.plan(needed=needed_snapshots(instance), now=datetime.now(UTC))
    if run:
        who = running.caretaker(actor)
        for number, one in enumerate(plan.garbage, start=1):
            err.print(
                f"  {number}/{len(plan.garbage)}  {one.kind} {one.model} {one.name}", markup=False, soft_wrap=True
            )
            collector.collect(one, actor=who)
    total = sum(one.size_bytes for one in plan.garbage)
    if json:
        show_json(
            {
                "removed": run,
                "size_bytes": total,
                "snapshots_kept": plan.snapshots_kept,
                "garbage": [
                    {
                        "kind": one.kind,
                        "model": one.model,
                        "name": one.name,
                        "why": one.why,
                        "size_bytes": one.size_bytes,
                    }
                    for one in plan.garbage
                ],
            }
        )
        return
    if plan.garbage:
        columns = ("kind", "model", "name", "bytes", "why")
        rows = [(one.kind, one.model, one.name, f"{one.size_bytes:,}", one.why) for one in plan.garbage]
        show_table("removed" if run else "would be removed", columns, rows)
    if plan.snapshots_kept:
        out.print(f"all snapshots are kept: {plan.snapshots_kept}", markup=False, soft_wrap=True)
    out.print(f"{len(plan.garbage)} thing(s), {total:,} bytes {'removed' if run else 'would be removed'}")


def delete(
    model: Model,
    version: Annotated[str, typer.Argument(help="The version.", show_default=False)],
    reason: Reason,
    actor: Actor = None,
) -> None:
    """Remove a version and its files, unless something reaches it: then it says what.

    Example:

        release delete churn 7 --reason "trained on data that must be erased"
    """
    from release_platform.cli import running

    running.project(model)
    services = running.services()
    services.releases.remove(model, version, actor=running.caretaker(actor), reason=reason)
    out.print(f"{model}: version {version} is removed")
