"""`release drill`: shows that a rollback works, by making one under load and coming back."""

from typing import Annotated, Any
from uuid import uuid4

import typer

from release_platform.cli import remote
from release_platform.cli.console import out, show_json
from release_platform.cli.options import Actor, Json, Model
from release_platform.domain.drill import Drilled, find_unfinished_id


def drill(
    model: Model,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the ledger for good.")] = "",
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Swap Production to the previous version and back under load, compare every answer, and record the time.

    Both moves are rollbacks in the ledger. Every server of RELEASE_SERVING_URL is asked golden rows meanwhile. Where a
    drill was cut off before, this brings Production back instead, and ends with exit code 5. With --json, what a drill
    that failed showed is printed as well; where none was made, nothing is.
    Exit code 7: an answer was wrong or a server did not swap; 6: a server does not answer before it; 5: no drill now.

    Examples:

        release drill breast_cancer

        release drill breast_cancer --reason "before the holidays" --json
    """
    if (api := remote.find_api(actor)) is not None:
        _tell(remote.drill(api, model, reason), json)
        return
    from release_platform.cli import running
    from release_platform.defs.drill import drill_id_of

    running.project(model)
    drills, run_id = running.services().store.drills, str(uuid4())
    # Where one was cut off, that one is brought back instead.
    cut_off = find_unfinished_id(running.services().store.ledger(model))
    ids = [drill_id_of(run_id, model), *([] if cut_off is None else [cut_off])]
    form: dict[str, Any] = {"model": model, "actor": running.operator(actor)}
    form |= {"reason": reason} if reason else {}
    try:
        running.run_job("drill", config={"ops": {"swap_and_return": {"config": form}}}, run_id=run_id)
    except Exception:  # whatever it is, a script is told what was kept, and `main` says what it is
        kept = next(filter(None, map(drills.find, ids)), None) if json else None
        if kept is not None:
            show_json(kept.to_json())
        raise
    found = drills.find(ids[0])
    assert found is not None
    _tell(found, json)


def _tell(found: Drilled, json: bool) -> None:
    """Prints what a drill showed, and raises what a bad one ends with."""
    from release_platform.drills import failure_of

    failure = failure_of(found)
    if json:
        show_json(found.to_json())
    elif failure is None:
        _show(found)
    if failure is not None:
        raise failure


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
