"""What the command line shows: progress, tables, trees and errors for people, JSON for scripts."""

import json
import logging
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from release_platform.domain.errors import ReleaseError

out = Console()
err = Console(stderr=True)
PROGRESS = "release.progress"


def show_error(error: Exception) -> None:
    """Prints an error and what to do about it."""
    if isinstance(error, ReleaseError):
        err.print("[bold red]error:[/] ", end="")
        err.print(error.problem, markup=False, highlight=False, soft_wrap=True)
        err.print("[bold]remedy:[/] ", end="")
        err.print(error.remedy, markup=False, highlight=False, soft_wrap=True)
    else:
        err.print("[bold red]unexpected error:[/] ", end="")
        err.print(f"{type(error).__name__}: {error}", markup=False, highlight=False, soft_wrap=True)
        err.print("Set RELEASE_DEBUG=1 to see where it came from.")


def show_json(value: object) -> None:
    """Prints a JSON value, and nothing else, to standard output."""
    print(json.dumps(value, indent=2, default=str))  # noqa: T201 - rich would wrap and colour it


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(("" if cell is None else str(cell)) for cell in row))
    out.print(table)


def show_pairs(title: str, pairs: Mapping[str, object]) -> None:
    """Prints names and values."""
    width = max(len(name) for name in pairs)
    out.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
    for name, value in pairs.items():
        out.print(f"  {name:<{width}}  {escape(str(value))}", soft_wrap=True, highlight=False)


class Progress(logging.Handler):
    """Shows a Dagster run stage by stage: a line for each asset and check as it is done."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._status = Status("starting", console=console)
        self._started: dict[str, float] = {}
        self._materialized: dict[str, list[str | None]] = {}
        self.checks: dict[str, tuple[bool, str]] = {}

    def __enter__(self) -> "Progress":
        logger = logging.getLogger(PROGRESS)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(self)
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        logging.getLogger(PROGRESS).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Shows one event of the run."""
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is None:
            return
        match event.event_type_value:
            case "STEP_START":
                self._started[event.step_key] = perf_counter()
                self._status.update(f"{_stage(event.step_key)} ...")
            case "ASSET_MATERIALIZATION":
                self._materialized.setdefault(event.step_key, []).append(event.partition)
            case "ASSET_CHECK_EVALUATION":
                self._check(event.event_specific_data)
            case "STEP_SUCCESS" if event.step_key in self._materialized:
                parts = [key for key in self._materialized[event.step_key] if key is not None]
                of = f", {len(parts)} partition(s)" if parts else ""
                self._line("[green]done[/]", _stage(event.step_key), self._spent(event.step_key) + of)
            case "STEP_FAILURE" if not event.step_key.endswith("_gates"):
                self._line("[red]failed[/]", _stage(event.step_key), self._spent(event.step_key))

    def _check(self, evaluation: Any) -> None:
        reason = evaluation.description or ""
        self.checks[evaluation.check_name] = (evaluation.passed, reason)
        word = (
            "[green]passed[/]"
            if evaluation.passed
            else ("[red]failed[/]" if evaluation.blocking else "[yellow]warned[/]")
        )
        self._line(word, f"  {evaluation.check_name}", reason)

    def _line(self, word: str, name: str, detail: str) -> None:
        self._console.print(f"  {word:<24} {name:<22} [dim]{escape(detail)}[/]", highlight=False, soft_wrap=True)

    def _spent(self, step: str) -> str:
        return f"{perf_counter() - self._started.get(step, perf_counter()):.1f} s"


def _stage(step_key: str) -> str:
    return step_key.split("__", 1)[-1]
