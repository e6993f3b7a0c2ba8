"""The process that a shadow version answers in, beside the server: `python -m serving.mirroring`.

It reads requests from its standard input, some at a time, and writes what came of them to its standard output, both as
pickles of the server that started it. Whatever can be worked out here is, so that the server only adds it up. What it
does can neither hold up the server's threads nor take the server down, and the system runs it only where nothing else
wants to run. It ends when its input does, so with the server.
"""

import os
import pickle
import signal
import struct
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, perf_counter
from typing import BinaryIO, NamedTuple

from release_platform.adapters.model_package import load_package
from release_platform.adapters.trust import Proof
from release_platform.domain.identity import Manifest
from release_platform.domain.slices import slices_of
from release_platform.domain.windows import find_flip
from serving.computing import check, predict
from serving.doors import Door
from serving.errors import Problem
from serving.limits import Limits
from serving.models import LoadedModel, Origin
from serving.observations import INPUT_REFUSED, Reflection, error_kind
from serving.tallies import first_answer, said

LENGTH = struct.Struct("!I")
"""How the number of bytes before each pickle is written."""
NICE = 10
"""How much the process stands back while it loads a version; more, and it might never on a machine that is busy."""
ANSWERS_WITHIN_S = 0.25
"""Seconds after which it answers what it has."""
_KEPT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A shadow version on disk.

    Attributes:
        model: The model's name.
        version: The version.
        folder: Where its verified copy is; it is verified again.
        manifest: Its files.
    """

    model: str
    version: str
    folder: Path
    manifest: Manifest


class Mirrored(NamedTuple):
    """A request as the shadow is asked it.

    Attributes:
        copy: The shadow.
        door: The protocol.
        head: The headers that the protocol reads.
        body: The body.
        limits: What it may hold.
        number: The number of the prediction that Production's version made.
        beside: What it answered to the first row (`said`); None where it failed, so that there is no pair.
    """

    copy: Copy
    door: Door
    head: Mapping[bytes, bytes]
    body: bytes
    limits: Limits
    number: int
    beside: str | float | None


class Mirror:
    """Answers requests as shadow versions would. It keeps the last few versions."""

    def __init__(self) -> None:
        self._loaded: dict[str, LoadedModel] = {}

    def reflect_some(self, asked: Iterable[Mirrored], *, within_s: float = ANSWERS_WITHIN_S) -> list[Reflection]:
        """Returns what the shadows make of the first requests: of at least one, and of as many as fit into a time."""
        end, made = monotonic() + within_s, []
        for one in asked:
            made.append(self.reflect(one))
            if monotonic() > end:
                break
        return made

    def reflect(self, asked: Mirrored) -> Reflection:
        """Returns what the shadow makes of a request; what it fails is told, not raised.

        Raises:
            IntegrityError: Its copy is not what was registered.
        """
        loaded = self.version(asked.copy)
        begun = perf_counter()
        try:
            inputs = asked.door.read(asked.body, asked.head, loaded, asked.limits).inputs
            predictions = predict(loaded, inputs)
            check(loaded, inputs, predictions)
        except Problem as problem:  # the version in Production took it, so it is no client's fault
            kind = error_kind(problem) or INPUT_REFUSED
            return Reflection(number=asked.number, ms=(perf_counter() - begun) * 1000, error=kind)
        ms = (perf_counter() - begun) * 1000
        answer, counted = first_answer(predictions)
        alone = Reflection(number=asked.number, ms=ms, answer=answer, counted=counted)
        if asked.beside is None:
            return alone
        flip = find_flip(asked.beside, said(loaded.package.task, predictions))
        return alone._replace(is_pair=True, flip=flip, slices=slices_of(loaded.package.plan, inputs))

    def lacks(self, copy: Copy) -> bool:
        """Returns whether a version is yet to be loaded."""
        return copy.manifest.digest not in self._loaded

    def version(self, copy: Copy) -> LoadedModel:
        """Returns a version, loaded if it was not yet.

        Raises:
            IntegrityError: Its copy is not what was registered.
        """
        loaded = self._loaded.get(copy.manifest.digest)
        if loaded is None:
            loaded = LoadedModel(
                model=copy.model,
                version=copy.version,
                digest=copy.manifest.digest,
                epoch=0,
                proof=Proof(signature="", certificate=""),
                package=load_package(copy.folder, copy.manifest),
                since=datetime.now(UTC),
                origin=Origin.DISK,
            )
            self._loaded = dict([*self._loaded.items(), (loaded.digest, loaded)][-_KEPT:])
        return loaded


def read_frame(source: BinaryIO) -> bytes | None:
    """Returns the next pickle, or None at the end."""
    head = source.read(LENGTH.size)
    return source.read(*LENGTH.unpack(head)) if len(head) == LENGTH.size else None


def answer(mirror: Mirror) -> int:
    """Answers with a mirror until the input ends; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; the server ends this one
    with suppress(OSError):
        os.nice(NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints belongs into the log
    answers.write(LENGTH.pack(0))  # ready
    answers.flush()
    with ThreadPoolExecutor(1) as loading:
        loading.submit(os.getpid).result()  # its thread is there before this one stands back, and so does not
        _yield_to_all()
        while (frame := read_frame(sys.stdin.buffer)) is not None:
            asked = pickle.loads(frame)  # noqa: S301 - from the server that started it
            for copy in {id(one.copy): one.copy for one in asked}.values():
                if mirror.lacks(copy):
                    loading.submit(mirror.version, copy).result()
            made = pickle.dumps(mirror.reflect_some(asked))
            answers.write(LENGTH.pack(len(made)) + made)
            answers.flush()
    return 0


def _yield_to_all() -> None:
    """Has the system run this thread only where nothing else wants to, and stop it as soon as something does.

    Niceness alone does not: Linux lets a thread of any niceness end its slice, a few milliseconds, before who wakes up
    gets its core. All but what loads a version stands back so far: that might take minutes then.
    """
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> int:
    """Answers as shadow versions do, until the input ends; returns the exit status."""
    return answer(Mirror())


if __name__ == "__main__":
    sys.exit(main())
