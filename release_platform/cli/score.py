"""`release score`: a Parquet data set, partition by partition, with the Production version."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from release_platform.cli.console import err, show_json, show_pairs
from release_platform.cli.options import Json, Model

if TYPE_CHECKING:
    from release_platform.domain.scoring import Outcome, Scores
    from release_platform.scoring import Told

Source = Annotated[
    str, typer.Option("--in", help="Parquet file, folder, or s3://bucket/prefix to score.", show_default=False)
]
Target = Annotated[str, typer.Option("--out", help="Folder or s3://bucket/prefix of the outputs.", show_default=False)]
Version = Annotated[
    str | None, typer.Option("--version", help="A version that is or was in Production; default: the one that is.")
]
Keep = Annotated[
    list[str] | None, typer.Option("--keep", help="A column of the input to have in the outputs; may be repeated.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes here; default: one for each core.")]
Scheduler = Annotated[
    str, typer.Option("--scheduler", help="Score on the workers of this Dask scheduler, e.g. tcp://host:8786.")
]


def score(
    model: Model,
    source: Source,
    target: Target,
    version: Version = None,
    keep: Keep = None,
    workers: Workers = None,
    scheduler: Scheduler = "",
    json: Json = False,
) -> None:
    """Score a Parquet data set with the Production version, by the rules of the server and to the last bit as it does.

    Each row group has an output file, which names model, version, digest, epoch and the digest of its input. What is
    finished is not done again; a changed input or another version is. Exit code 3: some partitions have no scores.

    Examples:

        release score churn --in customers/ --out scores/ --keep customer_id

        release score churn --in s3://lake/customers --out s3://lake/scores --scheduler tcp://scheduler:8786
    """
    from release_platform.adapters.scorer import Order
    from release_platform.scoring import DataSet, failure_of
    from release_platform.scoring import score as score_all
    from release_platform.settings import Settings

    Settings().prepare()
    order = Order(model=model, version=version, keep=tuple(keep or ()))
    with _progress(model) as told:
        scores = score_all(
            order,
            DataSet(source=source, target=target),
            n_workers=workers or os.cpu_count() or 1,
            scheduler=scheduler,
            told=told,
        )
    if json:
        show_json(scores.to_json())
    else:
        _show(scores)
    if (failure := failure_of(scores)) is not None:
        raise failure


@contextmanager
def _progress(model: str) -> Iterator["Told"]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bar:
        task, n_rows, n_failed = bar.add_task(f"{model}: loading", total=None), 0, 0

        def told(outcome: "Outcome", n_partitions: int) -> None:
            nonlocal n_rows, n_failed
            n_rows += 0 if outcome.problem else outcome.partition.n_rows
            n_failed += bool(outcome.problem)
            said = f"{model}: {n_rows:,} rows" + (f", {n_failed} failed" if n_failed else "")
            bar.update(task, advance=1, total=n_partitions, description=said)

        yield told


def _show(scores: "Scores") -> None:
    from release_platform.domain.scoring import State

    counts = ", ".join(f"{scores.n(state)} {state}" for state in State)
    show_pairs(
        f"{scores.by.model} version {scores.by.version}",
        {
            "digest": scores.by.digest,
            "epoch": scores.by.epoch,
            "engine": scores.by.engine,
            "partitions": f"{counts} (kept: finished before)",
            "rows": f"{scores.n_rows:,}",
        },
    )
    if scores.strange:
        said = f"{len(scores.strange)} Parquet file(s) beside the outputs are of no partition, e.g. {scores.strange[0]}"
        err.print(said, style="yellow", markup=False, soft_wrap=True)
