"""`release drill`: shows that a rollback works, by making one under load and coming back."""

from typing import Annotated, Any

import typer

from release_platform.cli.console import out, show_json
from release_platform.cli.options import Actor, Json, Model
from release_platform.domain.drill import Drilled, Outcome


def drill(
    model: Model,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the ledger for good.")] = "",
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Swap Production to the previous version and back under load, compare every answer, and record the time.

    Both moves are rollbacks in the ledger. Every server of RELEASE_SERVING_URL is asked golden rows meanwhile. Where a
    drill was cut off before, this brings Production back instead, and ends with exit code 5.
    Exit code 7: an answer was wrong or a server did not swap; 6: a server does not answer before it; 5: no drill now.

    Examples:

        release drill breast_cancer

        release drill breast_cancer --reason "before the holidays" --json
    """
    from release_platform.cli import running
    from release_platform.defs.drill import drill_id_of

    running.project(model)
    form: dict[str, Any] = {"model": model, "actor": running.operator(actor)}
    form |= {"reason": reason} if reason else {}
    run_id, _ = running.run_job("drill", config={"ops": {"swap_and_return": {"config": form}}})
    found = running.services().store.drills.find(drill_id_of(run_id, model))
    assert found is not None
    assert found.outcome is Outcome.READY
    if json:
        show_json(found.to_json())
        return
    _show(found)


def _show(found: Drilled) -> None:
    out.print(
        f"{found.model}: rollback-ready, {found.slowest_ms:.0f} ms: from version {found.home} to {found.away} in "
        f"{found.there_ms:.0f} ms and back in {found.back_ms:.0f} ms; {found.n_requests} requests, every answer right",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for url, (there, back) in found.servers.items():
        out.print(f"  {url}: {there:.0f} ms, {back:.0f} ms", markup=False, highlight=False, soft_wrap=True)
