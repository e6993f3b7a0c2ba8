"""A process that scores partitions (`serving.batch`), and what a Dask worker does with such processes of its own."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Any

from release_platform.domain.errors import DataError, IntegrityError, Refused, ReleaseError, Unavailable
from release_platform.domain.scoring import Outcome, Partition, ScoringModel, State
from release_platform.settings import Settings

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
_KINDS = {kind.exit_code: kind for kind in (DataError, Refused, Unavailable, IntegrityError)}
_STOP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is scored with.

    Attributes:
        model: The model's name.
        version: The version's number; None for the one in Production.
        keep: Columns of the input that the outputs have too.
        by: The names that the version must have; None for whatever is found.
    """

    model: str
    version: str | None = None
    keep: tuple[str, ...] = ()
    by: ScoringModel | None = None


class Scorer:
    """A process with a verified version, which it loads when it is first needed. For one thread.

    Args:
        order: What is scored with.
        tracking_uri: The registry.
        key_folder: The folder of the trusted keys.
    """

    def __init__(self, order: Order, *, tracking_uri: str, key_folder: str) -> None:
        self.order = order
        self._open = {
            "tracking_uri": tracking_uri,
            "key_folder": key_folder,
            "model": order.model,
            "version": order.version,
        }
        self._process: subprocess.Popen[str] | None = None
        self._words: IO[bytes] | None = None

    def open(self) -> ScoringModel:
        """Returns the version that scores, loaded.

        Raises:
            Refused: Nothing is in Production, or there is no such version.
            IntegrityError: It does not verify, or is another one than was ordered.
            Unavailable: The registry does not answer, or the process ended.
        """
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process does
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", "serving.batch"],
            env=os.environ | _ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            start_new_session=True,
        )
        by = ScoringModel(**self._ask({"open": self._open})["by"])
        if self.order.by not in {None, by}:
            raise IntegrityError(
                f"{by.model}: here it is version {by.version}, epoch {by.epoch}, {by.digest}, which was not ordered",
                remedy="see that all machines read one registry; if Production moved meanwhile, score again",
            )
        return by

    def score(self, partition: Partition) -> Outcome:
        """Returns what became of a partition; whatever goes wrong with it is an outcome."""
        try:
            if self._process is None:
                self.open()
            asked = {"score": asdict(partition), "keep": list(self.order.keep)}
            return Outcome.from_json(self._ask(asked)["outcome"])
        except ReleaseError as error:
            return Outcome(partition=partition, state=State.FAILED, problem=f"{partition.named}: {error.problem}")

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr] # it is a pipe
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()  # type: ignore[union-attr]
        if self._words is not None:
            self._words.close()
            self._words = None

    def _ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        process, line = self._process, ""
        assert process is not None
        with suppress(OSError, ValueError):  # a ValueError: it was closed meanwhile
            process.stdin.write(json.dumps(asked) + "\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            line = process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise self._gone(process)
        said: dict[str, Any] = json.loads(line)
        if "problem" in said:
            self.close()
            raise _KINDS.get(said["exit_code"], ReleaseError)(said["problem"], remedy=said["remedy"])
        return said

    def _gone(self, process: "subprocess.Popen[str]") -> Unavailable:
        """Ends what is left of a process that broke off; the next partition gets a new one."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        code = process.poll()
        last: list[str] = []
        if self._words is not None:
            self._words.seek(0)
            last = self._words.read().decode(errors="replace").strip().splitlines()[-1:]
        self.close()
        return Unavailable(
            f"the process that scores ended with code {code}{': ' + last[0] if last else ''}",
            remedy="code -9 is mostly a lack of memory: use fewer --workers, or smaller row groups",
        )


def scorer_here(order: Order) -> Scorer:
    """Returns a scorer by the settings of this process: on a worker of a cluster, those of that machine."""
    settings = Settings()
    return Scorer(order, tracking_uri=settings.tracking_uri, key_folder=str(settings.key_folder))


_own = threading.local()


def score_on_worker(order: Order, partition: Partition) -> Outcome:
    """Scores a partition on a worker of a cluster; each of its threads has a process, kept for the next one."""
    scorer: Scorer | None = getattr(_own, "scorer", None)
    if scorer is None or scorer.order != order:
        if scorer is not None:
            scorer.close()
        _own.scorer = scorer = scorer_here(order)
        atexit.register(scorer.close)
    return scorer.score(partition)
