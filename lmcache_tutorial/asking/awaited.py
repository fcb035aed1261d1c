"""A timed transport for clients that are awaited, such as a chat model under ``ainvoke``."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx

from ..settings.connections import CONNECTIONS
from .timed import TimedTransport


class AwaitedTransport(httpx.AsyncBaseTransport):
    """Passes requests on through a timed transport, each in a thread, so that the event loop goes on.

    There are as many threads as connections, so that what a graph asks at once is under way at once. Times
    are the timed transport's own: its reader stamps each piece as it comes, whatever the loop is busy with.
    """

    def __init__(self, timed: TimedTransport) -> None:
        """Whoever made the timed transport also closes it."""
        self._timed = timed
        self._threads = ThreadPoolExecutor(CONNECTIONS.max_connections, thread_name_prefix="awaited")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; called by httpx."""
        content = await request.aread()
        timeout = {name: value for name, value in request.extensions.items() if name == "timeout"}
        sent = httpx.Request(
            request.method, request.url, headers=request.headers, content=content, extensions=timeout
        )
        context = contextvars.copy_context()  # the graph's: it names the node
        answer = self._threads.submit(context.run, self._timed.handle_request, sent)
        try:
            response = await asyncio.wrap_future(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(_close)
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_AwaitedStream(response.stream, self._threads),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Let go of the threads; those that wait for an answer end with it."""
        self._threads.shutdown(wait=False)


def _close(answer: Future[httpx.Response]) -> None:
    """Close an answer that nobody waits for any more."""
    if not answer.cancelled() and answer.exception() is None:
        answer.result().close()


class _AwaitedStream(httpx.AsyncByteStream):
    """Waits for each piece in a thread."""

    def __init__(self, inner: httpx.SyncByteStream, threads: ThreadPoolExecutor) -> None:
        self._inner, self._threads = inner, threads

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self._inner)
        while (piece := await self._waited(lambda: next(pieces, None))) is not None:
            yield piece

    async def aclose(self) -> None:
        await self._waited(self._inner.close)

    async def _waited(self, call: Callable[[], Any]) -> Any:
        return await asyncio.wrap_future(self._threads.submit(call))
