"""`release replay`: recorded requests, answered by the Production version and by a candidate."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from release_platform.cli.console import err, out, show_json, show_table
from release_platform.cli.options import Json, Model, parse_since
from release_platform.domain.errors import GatesNotPassed

if TYPE_CHECKING:
    from release_platform.domain.gates import GateResult
    from release_platform.domain.replay import Replay

SHOWN = 10
"""Slices that are shown."""

Version = Annotated[str | None, typer.Option("--version", help="The candidate; default: the version in Staging.")]
Since = Annotated[
    timedelta | None,
    typer.Option("--since", parser=parse_since, metavar="TIME", help="How far back, e.g. 24h, 7d, 4w; default: 7d."),
]


def replay(model: Model, version: Version = None, since: Since = None, json: Json = False) -> None:
    """Ask a candidate and the Production version the requests that were recorded, and compare what they say.

    It shows which rows the candidate refuses and why, which answers change in which slices, and how long both take, and
    keeps the report. A promotion asks for it where the model has policy.replay; without it the default limits are used
    here. Exit code 4: a gate did not pass; with too few recorded rows none does.

    Examples:

        release replay breast_cancer

        release replay breast_cancer --version 3 --since 4w

        release replay breast_cancer --json
    """
    from release_platform.cli import running
    from release_platform.domain.replay import judge_replay
    from release_platform.domain.replay_spec import ReplaySpec
    from release_platform.replays import PERIOD

    limits = running.project(model).spec.policy.replay
    if not json:
        err.print(f"replaying the recorded requests of {model} ...", markup=False, soft_wrap=True)
    found = running.services().replays.run(model, version=version, since=since or PERIOD)
    gates = judge_replay(found, limits or ReplaySpec())
    passed = all(gate.passed for gate in gates)
    if json:
        said = {"passed": passed, "demanded": limits is not None, "gates": [gate.to_json() for gate in gates]}
        show_json({**said, **found.to_json()})
    else:
        _show(found, gates, demanded=limits is not None)
    if not passed:
        raise typer.Exit(GatesNotPassed.exit_code)


def _show(found: "Replay", gates: "tuple[GateResult, ...]", *, demanded: bool) -> None:
    from release_platform.domain.gates import Verdict
    from release_platform.domain.replay import next_step

    _line(
        f"{found.model}: version {found.candidate.version} beside version {found.stable.version} in Production, "
        f"{found.n_rows:,} of {found.n_recorded:,} recorded rows"
    )
    colours = {Verdict.PASSED: "green", Verdict.INCONCLUSIVE: "yellow"}
    for gate in gates:
        after = next_step(gate, found)
        said = f"{gate.reason}: {after}" if after else gate.reason
        _line(f"  {gate.gate} {gate.verdict}: {said}", style=colours.get(gate.verdict, "red"))
    for side in (found.stable, found.candidate):
        for refusal, n in sorted(side.refused.items()):
            _line(f"  version {side.version} refuses {n:,} row(s), {refusal}")
    rows = [
        (one.slice or "all", f"{one.pairs:,}", f"{one.share:.4f}", ", ".join(f"{of}: {n:,}" for of, n in one.flips[:3]))
        for one in found.flips[: SHOWN + 1]
    ]
    show_table("changed answers", ("slice", "rows", "share", "most frequent"), rows)
    times = [
        (side.version, *(f"{ms:.2f}" for ms in side.latency_ms.values()))
        for side in (found.stable, found.candidate)
        if side.latency_ms
    ]
    if times:
        show_table("milliseconds a row", ("version", *found.stable.latency_ms), times)
    _line(f"digest: {found.digest}")
    if not demanded:
        _line("no promotion asks for it: the model has no policy.replay, so the default limits were used")


def _line(said: str, style: str | None = None) -> None:
    out.print(said, style=style, markup=False, highlight=False, soft_wrap=True)
