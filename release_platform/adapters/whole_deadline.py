"""A transport of httpx whose deadline is for the whole answer: httpx limits each read, so one that drips never ends."""

import anyio
import httpx


class WholeDeadline(httpx.BaseTransport):
    """Sends each request over a connection of its own, and gives up when not all of the answer is there in time.

    Args:
        within_s: Seconds for all of it: to connect, to send, and to the last byte of the answer.
        trust_env: Whether the proxies of the environment are used.
    """

    def __init__(self, within_s: float, *, trust_env: bool) -> None:
        self._within_s = within_s
        self._trust_env = trust_env

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Returns the whole answer.

        Raises:
            TimeoutError: It is not there in time.
            httpx.HTTPError: As any transport raises it.
        """
        return anyio.run(self._answer, request)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        client = httpx.AsyncClient(trust_env=self._trust_env)  # reads the certificates, which is no fault of the server
        with anyio.fail_after(self._within_s):
            async with client:
                answer = await client.send(request, stream=True)
                body = b"".join([part async for part in answer.aiter_raw()])
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(body))
