"""The process that a shadow version answers in, beside the server: `python -m serving.mirroring`.

It reads requests from its standard input, one at a time, and writes what came of each to its standard output, both as
pickles of the server that started it. What it does can neither hold up the server's threads nor take the server down,
and the system lets others run before it. It ends when its input does, so with the server.
"""

import os
import pickle
import signal
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import BinaryIO

from release_platform.adapters.model_package import load_package
from release_platform.adapters.trust import Proof
from release_platform.domain.identity import Manifest
from release_platform.domain.prediction import Predictions
from release_platform.domain.slices import slices_of
from serving.computing import check, predict
from serving.doors import Door
from serving.errors import Problem
from serving.limits import Limits
from serving.models import LoadedModel, Origin
from serving.observations import INPUT_REFUSED, Reflection, error_kind

LENGTH = struct.Struct("!I")
"""How the number of bytes before each pickle is written."""
NICE = 10
"""How much the process stands back behind others. The most, 19, would let it starve on a machine that is busy."""
_KEPT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """A request as the shadow is asked it.

    Attributes:
        model: The model's name.
        version: The shadow's version.
        folder: Where its verified copy is; it is verified again.
        manifest: Its files.
        door: The protocol.
        head: The headers that the protocol reads.
        body: The body.
        limits: What it may hold.
    """

    model: str
    version: str
    folder: Path
    manifest: Manifest
    door: Door
    head: Mapping[bytes, bytes]
    body: bytes
    limits: Limits


class Mirror:
    """Answers requests as shadow versions would. It keeps the last few versions."""

    def __init__(self) -> None:
        self._loaded: dict[str, LoadedModel] = {}

    def reflect(self, asked: Mirrored) -> Reflection:
        """Returns what the shadow makes of a request; what it fails is told, not raised.

        Raises:
            IntegrityError: Its copy is not what was registered.
        """
        loaded = self._version(asked)
        begun = perf_counter()
        try:
            inputs = asked.door.read(asked.body, asked.head, loaded, asked.limits).inputs
            predictions = predict(loaded, inputs)
            check(loaded, inputs, predictions)
        except Problem as problem:  # the version in Production took it, so it is no client's fault
            kind = error_kind(problem) or INPUT_REFUSED
            return Reflection(ms=(perf_counter() - begun) * 1000, error=kind)
        ms = (perf_counter() - begun) * 1000
        return Reflection(ms=ms, first=_first(predictions), slices=slices_of(loaded.package.plan, inputs))

    def _version(self, asked: Mirrored) -> LoadedModel:
        loaded = self._loaded.get(asked.manifest.digest)
        if loaded is None:
            loaded = LoadedModel(
                model=asked.model,
                version=asked.version,
                digest=asked.manifest.digest,
                epoch=0,
                proof=Proof(signature="", certificate=""),
                package=load_package(asked.folder, asked.manifest),
                since=datetime.now(UTC),
                origin=Origin.DISK,
            )
            self._loaded = dict([*self._loaded.items(), (loaded.digest, loaded)][-_KEPT:])
        return loaded


def _first(predictions: Predictions) -> Predictions:
    probabilities = predictions.probabilities
    return Predictions(
        values=predictions.values[:1].copy(), probabilities=None if probabilities is None else probabilities[:1].copy()
    )


def read_frame(source: BinaryIO) -> bytes | None:
    """Returns the next pickle, or None at the end."""
    head = source.read(LENGTH.size)
    return source.read(*LENGTH.unpack(head)) if len(head) == LENGTH.size else None


def main() -> int:
    """Answers until the input ends; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; the server ends this one
    with suppress(OSError):
        os.nice(NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints belongs into the log
    mirror = Mirror()
    answers.write(LENGTH.pack(0))  # ready
    answers.flush()
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        reflection = pickle.dumps(mirror.reflect(pickle.loads(frame)))  # noqa: S301 - from the server that started it
        answers.write(LENGTH.pack(len(reflection)) + reflection)
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
