"""The workers beside this one, asked over sockets in the folder that their supervisor gave them.

Whichever worker a client reaches can so tell what all of them know. A question is a JSON object, and so is its answer;
each worker has the socket `<its origin>.sock`. One that died leaves a socket on which nobody answers. What is large is
asked and answered as bytes, so that nobody reads it on the way to a client.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

WITHIN_S = 2.0
"""Seconds that a worker has to answer."""
_LOG = logging.getLogger(__name__)

Answer = Callable[[dict[str, Any]], Any]
Read = Callable[[bytes], Any]


class Siblings:
    """Asks the other workers, and answers them.

    Args:
        folder: Where their sockets are; None for a server of one process, which has none beside it.
        origin: The name of this process: what the ids of its predictions begin with.
        answer: Returns, for a question, a JSON value, or bytes, which are sent as they are. Called on the event loop.
        within_s: Seconds that another one has to answer.
    """

    def __init__(self, folder: Path | None, origin: str, answer: Answer, *, within_s: float = WITHIN_S) -> None:
        self._folder = folder
        self.origin = origin
        self._answer = answer
        self._within_s = within_s

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answers the others meanwhile."""
        if self._folder is None:
            yield
            return
        own = self._place(self.origin)
        try:
            server = await asyncio.start_unix_server(self._serve, own)
        except OSError as error:  # e.g. no more files may be open; too long a path is refused by `supervise`
            _LOG.error("the workers cannot ask each other, so each tells its own windows only: %s", error)
            yield
            return
        own.chmod(0o600)
        try:
            yield
        finally:
            server.close()
            own.unlink(missing_ok=True)

    def has(self, origin: str) -> bool:
        """Returns whether there is, or was, a worker of this name beside this one."""
        return self._folder is not None and origin != self.origin and self._place(origin).exists()

    async def ask(self, origin: str, question: dict[str, Any], *, read: Read = orjson.loads) -> Any | None:
        """Returns what one other worker answers; None when it is gone.

        Args:
            origin: Its name.
            question: The question.
            read: Returns what bytes of an answer are; raises ValueError where they are not whole.

        Raises:
            TimeoutError: It does not answer in time.
        """
        place = self._place(origin)
        try:
            async with asyncio.timeout(self._within_s):
                reader, writer = await asyncio.open_unix_connection(place)
                try:
                    writer.write(orjson.dumps(question))
                    writer.write_eof()
                    found = await reader.read(-1)
                finally:
                    writer.close()
            return read(found)
        except (ConnectionError, FileNotFoundError, ValueError):  # it ended, before or while it was asked
            pass  # its socket stays: a worker that goes on as it may just have made its own in the same place
        return None

    async def ask_all(self, question: dict[str, Any], *, read: Read = orjson.loads) -> tuple[list[Any], int]:
        """Returns what all others answer that are not gone, and how many did not answer in time; `read`: see `ask`."""
        if self._folder is None:
            return [], 0
        others = sorted(path.stem for path in self._folder.glob("*.sock") if path.stem != self.origin)
        found = await asyncio.gather(
            *(self.ask(other, question, read=read) for other in others), return_exceptions=True
        )
        answers = [one for one in found if one is not None and not isinstance(one, BaseException)]
        return answers, sum(isinstance(one, BaseException) for one in found)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            try:
                question = orjson.loads(await reader.read(-1))
                answer = self._answer(question)
                writer.write(answer if isinstance(answer, bytes) else orjson.dumps(answer))
                await writer.drain()
            except Exception:  # noqa: BLE001 - whoever asks gets no answer, and this server goes on
                _LOG.exception("another worker's question could not be answered")
            finally:
                writer.close()

    def _place(self, origin: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{origin}.sock"
