"""`release gate`: judge a model in CI, before there is a version of it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import GatesNotPassed, Refused, ReleaseError, Unavailable

if TYPE_CHECKING:
    from release_platform.domain.judged import Judged
    from release_platform.domain.selftest import Selftest
    from release_platform.services import Services


class GateGroup(TyperGroup):
    """`release gate MODEL` is `release gate model MODEL`: the model's name may stand where a command would."""

    default = "model"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the command before arguments that name none."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [self.default, *args]
        return super().parse_args(ctx, args)


gate = typer.Typer(cls=GateGroup, no_args_is_help=True)


@gate.callback()
def _gate() -> None:
    """Train and judge a model without any server, and say by the exit code whether its gates passed.

    Examples:

        release gate breast_cancer

        release gate breast_cancer --from main --markdown summary.md

        release gate selftest breast_cancer
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is prepared here that would set it


@gate.command("model")
def model(
    model: Model,
    version: Annotated[
        str | None, typer.Option("--version", help="Judge this version by its recorded report; nothing is trained.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Compare with the model's code at this commit.", metavar="REF")
    ] = None,
    partitions: Annotated[
        str | None, typer.Option("--partitions", help="Use these partitions only, first to last.", metavar="A:B")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write a summary for a pull request to this file.")
    ] = None,
    sarif: Annotated[
        Path | None, typer.Option("--sarif", help="Write SARIF to this file: each gate that did not pass, at its line.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option("--metrics", help="Write OpenMetrics text to this file, for GitLab's metrics report.")
    ] = None,
    json: Json = False,
) -> None:
    """Train and judge a model as a release would, and register nothing. Exit code 4: a blocking gate did not pass.

    It needs no server. Where a release store is known, the version in Production is compared with.

    Examples:

        release gate breast_cancer --junit gates.xml --markdown summary.md --sarif gates.sarif

        release gate breast_cancer --from main

        release gate breast_cancer --version 3
    """
    if version is not None and (since is not None or partitions is not None):
        raise Refused("these options do not go together", remedy="--version alone, or --from and --partitions")
    try:
        found = _judged(model, version, since, partitions)
    except ReleaseError as error:
        from release_platform.gating.junit import junit_error
        from release_platform.gating.pull_request import pull_request_error

        _write(junit, junit_error(model, error))
        _write(markdown, pull_request_error(model, error))
        raise
    _write_all(found, junit, markdown, sarif, metrics)
    if json:
        show_json(found.to_json())
    else:
        _show(found)
    if not found.passed:
        raise typer.Exit(GatesNotPassed.exit_code)


@gate.command("selftest")
def selftest(
    model: Model,
    rows: Annotated[
        int | None, typer.Option("--rows", help="Use so many rows at most, evenly spread; default: 40,000.", min=100)
    ] = None,
    json: Json = False,
) -> None:
    """Prove that the gates bite: models that are spoilt on purpose must be stopped, and a clean one pass.

    The twins are trained one after the other: shuffled labels, a leaked target, stale data, a slice made worse, NaN
    features, a constant model, a slow one, an uncalibrated one. Exit code 4: one of them was stopped by no gate, or the
    clean one was. Where a release store is known, the result is signed and kept there, as the proof that
    `policy.selftest: required` asks for, and shown as the asset check `selftest`.

    Example:

        release gate selftest breast_cancer
    """
    from release_platform.cli import running
    from release_platform.gating.selftest import ROWS, run_selftest

    project = running.project(model)
    err.print(f"[bold]release gate selftest {model}[/]: training spoilt twins ...", soft_wrap=True)
    found = run_selftest(project, rows or ROWS)
    services = known_services()
    if services is not None:
        from release_platform.defs.selftest import selftest_evaluation

        services.releases.proofs.keep(found)
        with running.instance() as instance:
            instance.report_runless_asset_event(selftest_evaluation(project, found))
    if json:
        show_json(found.to_json())
    else:
        _show_twins(found)
    if not found.passed:
        raise typer.Exit(GatesNotPassed.exit_code)


def _judged(model: str, version: str | None, since: str | None, partitions: str | None) -> "Judged":
    from release_platform.adapters.clock import SystemClock
    from release_platform.cli import running

    project = running.project(model)
    if version is not None:
        from release_platform.gating.version import judge_version

        return judge_version(project, running.services(), version)
    err.print(f"[bold]release gate {model}[/]: training and judging; nothing is registered", soft_wrap=True)
    months = None if partitions is None else project.months(partitions, SystemClock().now())
    if since is not None:
        from release_platform.gating.commits import judge_commits

        return judge_commits(project, since, months)
    from release_platform.gating.tree import judge_tree

    return judge_tree(project, known_services(), months)


def known_services() -> "Services | None":
    """Returns the outside systems where somebody released before, or where the settings name them; None otherwise."""
    from release_platform.cli import running
    from release_platform.profiles import Profile
    from release_platform.settings import Settings

    settings = Settings()
    embedded = settings.profile is Profile.EMBEDDED and not settings.store_url
    if embedded and not (settings.root / "release.db").exists():
        return None
    return running.services()


def _write_all(
    found: "Judged", junit: Path | None, markdown: Path | None, sarif: Path | None, metrics: Path | None
) -> None:
    from release_platform.cli import running
    from release_platform.gating.junit import junit as as_junit
    from release_platform.gating.open_metrics import open_metrics
    from release_platform.gating.pull_request import pull_request
    from release_platform.gating.sarif import sarif as as_sarif
    from release_platform.pipeline.environment import git_root

    folder = running.project(found.model).folder
    _write(junit, as_junit(found))
    _write(markdown, pull_request(found))
    _write(metrics, open_metrics(found))
    _write(sarif, as_sarif(found, folder / "defs.yaml", git_root(folder) or Path.cwd()))


def _write(file: Path | None, text: str) -> None:
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{file} cannot be written: {error}", remedy="name a file that can be written") from None


def _show(found: "Judged") -> None:
    out.print(f"{found.subject}, compared with {found.compared_with or 'nothing'}", markup=False, soft_wrap=True)
    for gate in found.gates:
        word = gate.verdict.value if gate.blocking or gate.passed else f"{gate.verdict} (advisory)"
        out.print(f"  {word:<24} {gate.gate:<22} {gate.reason}", markup=False, highlight=False, soft_wrap=True)
    changes = {"data": found.changes.data, "code": found.changes.code, "parameters": found.changes.parameters}
    for name, sentences in changes.items():
        for sentence in sentences or ():
            out.print(f"  changed {name + ':':<11} {sentence}", markup=False, highlight=False, soft_wrap=True)
    said = "every blocking gate passed" if found.passed else f"{len(found.failed)} blocking gate(s) did not pass"
    err.print(f"{found.model}: {said}", markup=False, highlight=False, soft_wrap=True)


def _show_twins(found: "Selftest") -> None:
    for result in found.results:
        stopped = ", ".join(result.stopped_by) or "no gate"
        became = f"skipped: {result.skipped}" if result.skipped else f"stopped by {stopped}"
        if result.twin == "clean" and not result.stopped_by:
            became = "passed"
        word = "ok" if result.as_it_should_be else "WRONG"
        detail = f" ({result.detail})" if result.detail else ""
        out.print(f"  {word:<6} {result.twin:<16} {became}{detail}", markup=False, highlight=False, soft_wrap=True)
    err.print(f"{found.model}: {found.said}", markup=False, highlight=False, soft_wrap=True)
