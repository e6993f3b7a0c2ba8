"""`release promote`, `approve`, `cancel` and `rollback`: through the operator's jobs, or through the operators' API."""

from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from types import MappingProxyType
from typing import Annotated, Any

import typer

from release_platform.cli import remote
from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Actor, Json, Model, Reason
from release_platform.cli.rollout import rollout_here, show_rollout
from release_platform.domain.asked_rollout import asked_in_words
from release_platform.domain.errors import Refused
from release_platform.domain.ledger import ROLLBACK_ID, LedgerRow
from release_platform.domain.policy import (
    Facts,
    PromotionRequest,
    RequestState,
    find_approval,
)

WAIT_S = 180.0
PATIENCE_S = 30.0
RECORD_S = 5.0
RECENT = 5


def promote(
    model: Model,
    reason: Reason,
    version: Annotated[str | None, typer.Option("--version", help="The version; default: the one in Staging.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", help="all_at_once, canary, shadow or shadow_then_canary; default: what the model's YAML says."
        ),
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            help="A step of the canary, WEIGHT:REQUESTS:TIME or WEIGHT:REQUESTS:TIME:LONGEST; once for each step.",
        ),
    ] = None,
    shadow: Annotated[
        str | None, typer.Option("--shadow", help="The shadow stage, SHARE:PAIRS:TIME or SHARE:PAIRS:TIME:LONGEST.")
    ] = None,
    bake: Annotated[str | None, typer.Option("--bake", help="How long the version before stays warm, e.g. 2h.")] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option("--gate", help="METRIC:MARGIN, a gate more or a stricter one; once for each gate."),
    ] = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Ask for a version to go to Production; it goes when every condition holds.

    With a Dagster daemon running, its promotion sensor decides and this command waits for it. Without one, this command
    makes the same decision and runs the same job. Unless the strategy is all_at_once, a rollout begins then, which the
    rollout sensor of that daemon carries on; `release rollout status` shows it.

    Steps, shadow, bake time and gates are the model's own where they are not given; a request may ask for more than
    those demand, not for less.

    Examples:

        release promote breast_cancer --reason "better recall, reviewed by the board"

        release promote breast_cancer --version 3 --actor ada --reason "back to the linear model"

        release promote breast_cancer --strategy canary --reason "new features"

        release promote breast_cancer --strategy canary --step 5%:2000:10m --step 25%:5000:15m --gate errors:0.5%
        --reason "a new library"
    """
    words: dict[str, Any] = {"steps": step or [], "shadow": shadow, "bake": bake, "gates": gate or []}
    asked_in_words(**words)  # what is written wrongly is said at once, not by a run that failed
    if (api := remote.find_api(actor)) is not None:
        found = remote.promote(api, model, version=version, reason=reason, strategy=strategy, words=words)
        if isinstance(found, LedgerRow):
            _show(found, json, said=[])
        else:
            show_rollout(found, json)
        return
    row = promote_model(model, version=version, actor=actor, reason=reason, strategy=strategy, words=words)
    if row is not None:
        _show(row, json, said=_servers_said(row))
        return
    show_rollout(rollout_here(model), json)
    if not sensor_is_running():
        err.print("  no Dagster daemon runs here: nothing carries the rollout on until `release dev`", soft_wrap=True)


def promote_model(
    model: str,
    *,
    version: str | None,
    actor: str | None,
    reason: str,
    strategy: str | None = None,
    words: Mapping[str, Any] = MappingProxyType({}),
) -> LedgerRow | None:
    """Requests a promotion and sees it through; returns the ledger row, or None when a rollout to it has begun.

    `words` is what was written of its rollout, by the names of the launch form.

    Raises:
        Refused: A condition does not hold; the request stays open, unless it never can.
    """
    from release_platform.cli import running

    running.project(model)
    form: dict[str, Any] = {"model": model, "actor": running.operator(actor), "reason": reason}
    given = {"version": version, "strategy": strategy, **words}
    form |= {name: value for name, value in given.items() if value}
    run_id, _ = running.run_job("request_promotion", config={"ops": {"open_request": {"config": form}}})
    request = _request_of(run_id)
    if request.reason != reason:
        err.print(f"  carrying on with request {request.request_id}, asked for with: {request.reason}", markup=False)
    if sensor_is_running():
        err.print("  the promotion sensor decides ...")
        return _wait_for_sensor(request)
    return _decide_here(request)


def _request_of(run_id: str) -> PromotionRequest:
    from release_platform.cli import running
    from release_platform.defs.promotion import REQUEST_TAG

    with running.instance() as instance:
        run = instance.get_run_by_id(run_id)
    assert run is not None
    return running.services().store.get_request(run.tags[REQUEST_TAG])


def sensor_is_running() -> bool:
    """Whether a Dagster daemon evaluates sensors on this instance now."""
    from time import time

    from release_platform.cli import running

    with running.instance() as instance:
        beat = instance.get_daemon_heartbeats().get("SENSOR")
    return beat is not None and time() - beat.timestamp < 60


def _decide_here(request: PromotionRequest) -> LedgerRow | None:
    from release_platform.cli import running
    from release_platform.defs.promotion import decide_requests

    if _has_rollout(request):
        return None

    with running.instance() as instance:
        only = {request.model: running.project(request.model)}
        ready, waiting = decide_requests(only, running.services(), instance)
    mine = [run for run in ready if run.tags.get("release/request") == request.request_id]
    if not mine:
        said = [line for line in waiting if request.request_id in line] or waiting
        raise Refused("\n".join(said), remedy=f"`release status {request.model}` shows what is missing")
    running.run_job("promote", config=mine[0].run_config, tags=mine[0].tags)
    return None if _has_rollout(request) else _row_of(request)


def _has_rollout(request: PromotionRequest) -> bool:
    from release_platform.cli import running

    return running.services().store.rollouts.find(request.request_id) is not None


def _wait_for_sensor(request: PromotionRequest) -> LedgerRow | None:
    from release_platform.cli import running

    if _has_rollout(request):
        return None

    store, until, patience = running.services().store, monotonic() + WAIT_S, monotonic() + PATIENCE_S
    missing = missing_conditions(request)
    if missing:
        raise Refused(
            f"request {request.request_id} waits: {'; '.join(missing)}",
            remedy="the promotion sensor carries it out as soon as every condition holds",
        )
    while monotonic() < until:
        state = store.get_request(request.request_id)
        if _has_rollout(request):
            return None
        if state.state is RequestState.PROMOTED:
            return _row_of(request)
        if state.state is not RequestState.OPEN:
            raise Refused(
                f"request {request.request_id} is {state.state}: {state.outcome}", remedy="open a new request"
            )
        if monotonic() > patience and not _is_launched(request):  # the daemon stopped, or does not know this model
            return _decide_here(request)
        sleep(0.5)
    raise Refused(
        f"request {request.request_id} still waits: {'; '.join(missing_conditions(request)) or 'for its run'}",
        remedy=f"`release status {request.model}` shows what is missing; the request stays open",
    )


def _is_launched(request: PromotionRequest) -> bool:
    import dagster as dg

    from release_platform.cli import running
    from release_platform.defs.promotion import REQUEST_TAG

    with running.instance() as instance:
        runs = instance.get_runs(filters=dg.RunsFilter(tags={REQUEST_TAG: request.request_id}))
    return any(run.job_name == "promote" for run in runs)


def missing_conditions(request: PromotionRequest) -> tuple[str, ...]:
    """Returns what an open request waits for, as the sensor would say."""
    from release_platform.cli import running

    return running.services().releases.missing(facts_of(request))


def facts_of(request: PromotionRequest) -> Facts:
    """Returns what is known of a request now."""
    from release_platform.cli import running

    policy = running.project(request.model).spec.policy
    return running.services().releases.facts(request, policy)


def _row_of(request: PromotionRequest) -> LedgerRow:
    from release_platform.cli import running

    return next(r for r in running.services().store.ledger(request.model) if r.request_id == request.request_id)


def approve(
    request_id: Annotated[str, typer.Argument(help="Id of the promotion request.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="What was looked at.")] = "",
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Approve what a promotion request asks for now; void as soon as model, report or policy change.

    Example:

        release approve 3f9c2a71b0de --actor grace --reason "read the report, slices are fine"
    """
    api = remote.find_api(actor)
    found = remote.approve(api, request_id, reason) if api else _approve_here(request_id, reason, actor)
    if json:
        show_json({name: value for name, value in found.items() if name != "said"})
        return
    out.print(f"{found['model']} version {found['version']}: {found['said']}", markup=False, soft_wrap=True)
    said = f"Still missing: {'; '.join(found['missing'])}" if found["missing"] else "Every condition holds."
    out.print(said, markup=False, soft_wrap=True)


def _approve_here(request_id: str, reason: str, actor: str | None) -> dict[str, Any]:
    from release_platform.cli import running

    who = running.operator(actor)
    form = {"request_id": request_id, "actor": who, "reason": reason}
    running.run_job("approve", config={"ops": {"record_approval": {"config": form}}})
    request = running.services().store.get_request(request_id)
    facts = facts_of(request)
    given = find_approval(facts, who)
    assert given is not None
    return {
        "request_id": request_id,
        "model": request.model,
        "version": request.version,
        "valid_until": given.until.isoformat() if given.until else None,
        "missing": list(running.services().releases.missing(facts)) if request.state is RequestState.OPEN else [],
        "said": given.said,
    }


def cancel(
    request_id: Annotated[str, typer.Argument(help="Id of the promotion request.", show_default=False)],
    reason: Reason,
    actor: Actor = None,
) -> None:
    """Close an open promotion request, so that it is never carried out.

    Example:

        release cancel 3f9c2a71b0de --reason "asked for the wrong version"
    """
    if (api := remote.find_api(actor)) is not None:
        outcome = remote.cancel(api, request_id, reason)
    else:
        from release_platform.cli import running

        who = running.operator(actor)
        outcome = running.services().releases.cancel(request_id, actor=who, reason=reason).outcome
    out.print(f"request {request_id} is cancelled {outcome}", markup=False, soft_wrap=True)


def rollback(
    model: Model,
    reason: Reason,
    to: Annotated[
        str | None, typer.Option("--to", help="A former Production version; default: the previous one.")
    ] = None,
    actor: Actor = None,
    json: Json = False,
) -> None:
    """Bring a former Production version back, at once and without approval.

    Examples:

        release rollback breast_cancer --reason "error rate doubled"

        release rollback breast_cancer --to 3 --reason "last version before the schema change"
    """
    if (api := remote.find_api(actor)) is not None:
        row, said = remote.rollback(api, model, to=to, reason=reason)
        _show(row, json, said=said)
        return
    from release_platform.cli import running

    running.project(model)
    form: dict[str, Any] = {"model": model, "actor": running.operator(actor), "reason": reason}
    if to is not None:
        form["to"] = to
    run_id, _ = running.run_job("rollback", config={"ops": {"bring_back": {"config": form}}})
    row = next(r for r in running.services().store.ledger(model) if r.request_id == f"{ROLLBACK_ID}{run_id}")
    _show(row, json, said=_servers_said(row))


def _show(row: LedgerRow, json: bool, *, said: Sequence[str]) -> None:
    if json:
        show_json({**row.to_json(), "servers": list(said)})
        return
    before = row.before["production"]
    out.print(
        f"{row.model}: version {row.version} is in Production (epoch {row.epoch}, by {row.actor}: {row.reason}); "
        + (f"before it was version {before}" if before else "it is the first one"),
        markup=False,
        soft_wrap=True,
    )
    for sentence in said:
        out.print(f"  {sentence}", markup=False, highlight=False, soft_wrap=True)


def _servers_said(row: LedgerRow) -> list[str]:
    """Returns what each live server said to a move; its run, when it is not ours, may still be about to write that."""
    until = monotonic() + RECORD_S
    while (said := _recorded(row)) is None and monotonic() < until:
        sleep(0.2)
    return said or []


def _recorded(row: LedgerRow) -> list[str] | None:
    import dagster as dg

    from release_platform.cli import running
    from release_platform.defs.naming import asset_key
    from release_platform.defs.promotion import SERVERS

    moves = dg.AssetRecordsFilter(asset_key=asset_key(row.model, "production_version"))
    with running.instance() as instance:
        found = instance.fetch_materializations(moves, limit=RECENT).records
    for record in found:
        metadata = record.asset_materialization.metadata if record.asset_materialization else {}
        if SERVERS in metadata and metadata["epoch"].value == row.epoch:
            return str(metadata[SERVERS].value).splitlines()
    return None
