"""The commands of `release`, each in the module of its noun."""

import typer

from release_platform.cli import (
    api,
    api_key,
    audit,
    backup,
    card,
    ci,
    data,
    demo,
    dev,
    drift,
    drill,
    garbage,
    gate,
    keys,
    ledger,
    lineage,
    new,
    promotion,
    replay,
    reproduce,
    rollout,
    run,
    score,
    serving,
    show,
    stack,
    store,
)

EXIT_CODES = """
Exit codes: 0 success; 1 unforeseen error; 2 wrong usage or YAML; 3 data or training; 4 a gate did not pass;
5 refused or waiting; 6 an outside system does not answer; 7 bytes or answers are not the registered ones.
"""

app = typer.Typer(
    name="release",
    help="The whole life of a model: train, judge, register, promote, serve, verify.\n\n" + EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("run")(run.run)
app.add_typer(gate.gate, name="gate")
app.add_typer(ci.ci, name="ci")
app.command("status")(show.status)
app.command("promote")(promotion.promote)
app.command("approve")(promotion.approve)
app.command("cancel")(promotion.cancel)
app.command("rollback")(promotion.rollback)
app.command("drill")(drill.drill)
app.add_typer(rollout.rollout, name="rollout")
app.command("audit")(audit.audit)
app.command("serve")(serving.serve)
app.command("verify")(serving.verify)
app.command("score")(score.score)
app.command("replay")(replay.replay)
app.command("drift")(drift.drift)
app.command("lift-hold")(drift.lift_hold)
app.command("history")(show.history)
app.command("lineage")(lineage.lineage)
app.command("card")(card.card)
app.command("who-served")(ledger.who_served)
app.add_typer(ledger.ledger, name="ledger")
app.add_typer(data.data, name="data")
app.add_typer(keys.keys, name="keys")
app.add_typer(api_key.api_key, name="api-key")
app.add_typer(store.store, name="store")
app.add_typer(stack.stack, name="stack")
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("gc")(garbage.gc)
app.command("delete")(garbage.delete)
app.command("reproduce")(reproduce.reproduce)
app.command("models")(show.models)
app.command("new")(new.new)
app.command("api")(api.api)
app.command("dev")(dev.dev)
app.command("demo")(demo.demo)
