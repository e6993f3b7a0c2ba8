"""Scores a data set with a version that is or was in Production: on this machine, or on a Dask cluster."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

from release_platform.adapters.dask_cluster import connected
from release_platform.adapters.datasets import list_parquet, normal, parquet_files
from release_platform.adapters.scorer import Order, Scorer, score_on_worker, scorer_here
from release_platform.domain.errors import DataError, Refused
from release_platform.domain.scoring import Outcome, Partition, Scores, State, target_of

SHOWN = 20
Told = Callable[[Outcome, int], None]
"""Is told what became of each partition, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """What to score, and where to.

    Attributes:
        source: A Parquet file, or a folder of them; a path or `s3://bucket/prefix`.
        target: The folder of the outputs, likewise.
    """

    source: str
    target: str


def score(
    order: Order, data: DataSet, *, n_workers: int = 1, scheduler: str = "", told: Told = lambda *_: None
) -> Scores:
    """Returns what became of each partition, after all were tried; what was finished before is not done again.

    Args:
        order: The model and version.
        data: The data set.
        n_workers: How many processes of this machine score at the same time.
        scheduler: Address of a Dask scheduler to score on its workers instead; empty for none.
        told: Is told of each partition as it is done.

    Raises:
        NotFound: Nothing is in Production, or there is no such version.
        IntegrityError: The version does not verify.
        SourceError: There is no Parquet file, or one cannot be read.
        Refused: Input and outputs would be in one folder.
        Unavailable: The registry, a storage or the scheduler does not answer.
    """
    partitions = partitions_of(data)
    first = scorer_here(order)
    try:
        by = first.open()
        order = replace(order, version=by.version, by=by)
        if scheduler:
            first.close()
            found = _on_cluster(scheduler, order, partitions)
        else:
            found = _on_this_machine(first, order, partitions, n_workers)
        outcomes = []
        for outcome in found:
            outcomes.append(outcome)
            told(outcome, len(partitions))
    finally:
        first.close()
    return Scores(by=by, outcomes=tuple(outcomes), strange=_strange(data, partitions))


def partitions_of(data: DataSet) -> tuple[Partition, ...]:
    """Returns the partitions of a data set, in order. Raises as `score`."""
    source, target = normal(data.source), normal(data.target)
    if f"{target}/".startswith(f"{source}/") or f"{source}/".startswith(f"{target}/"):
        raise Refused(
            f"{data.source} and {data.target} lie in one another, so outputs would be scored next time",
            remedy="give the outputs a folder of their own",
        )
    found = []
    for file in parquet_files(source):
        first_row = 0
        for group, n_rows in enumerate(file.rows):
            found.append(
                Partition(
                    source=file.address,
                    group=group,
                    first_row=first_row,
                    n_rows=n_rows,
                    target=f"{target}/{target_of(file.relative, group)}",
                )
            )
            first_row += n_rows
    return tuple(found)


def failure_of(scores: Scores) -> DataError | None:
    """Returns the failure of all partitions together; None where each has its output."""
    problems = scores.problems
    if not problems:
        return None
    listed = [f"  - {problem}" for problem in problems[:SHOWN]]
    listed += [f"  - and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    said = f"{scores.by.model}: {len(problems)} of {len(scores.outcomes)} partitions have no scores:"
    return DataError(
        "\n".join([said, *listed]),
        remedy="correct what is named and run it again: what is finished is not done again",
    )


def _on_this_machine(first: Scorer, order: Order, partitions: Sequence[Partition], n_workers: int) -> Iterator[Outcome]:
    scorers = [first, *(scorer_here(order) for _ in range(min(n_workers, len(partitions)) - 1))]
    idle: SimpleQueue[Scorer] = SimpleQueue()

    def scored(partition: Partition) -> Outcome:
        scorer = idle.get()
        try:
            return scorer.score(partition)
        finally:
            idle.put(scorer)

    with ExitStack() as ending:
        threads = ThreadPoolExecutor(len(scorers), thread_name_prefix="score")
        ending.callback(threads.shutdown, wait=True)
        for scorer in scorers:
            idle.put(scorer)
            ending.callback(scorer.close)  # so that no thread waits for its answer
        ending.callback(threads.shutdown, wait=False, cancel_futures=True)  # this is done first
        for future in as_completed([threads.submit(scored, partition) for partition in partitions]):
            yield future.result()


def _on_cluster(scheduler: str, order: Order, partitions: Sequence[Partition]) -> Iterator[Outcome]:
    with connected(scheduler) as client:
        import distributed

        each_completed: Any = distributed.as_completed
        futures = {client.submit(score_on_worker, order, one, pure=False): one for one in partitions}
        for future in each_completed(list(futures), loop=client.loop):
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                problem = f"{futures[future].named}: its worker failed: {type(error).__name__}: {error}"
                yield Outcome(partition=futures[future], state=State.FAILED, problem=problem)
            future.release()


def _strange(data: DataSet, partitions: Sequence[Partition]) -> tuple[str, ...]:
    known = {partition.target for partition in partitions}
    return tuple(address for address in list_parquet(data.target) if address not in known)
