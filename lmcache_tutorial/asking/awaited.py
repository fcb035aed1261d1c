"""A timed transport for clients that are awaited, such as a chat model under ``ainvoke``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

from .timed import TimedTransport


class AwaitedTransport(httpx.AsyncBaseTransport):
    """Passes requests on through a timed transport, each in a thread, so that the event loop goes on.

    Times are the timed transport's own: its reader stamps each piece as it comes, whatever the loop is busy
    with.
    """

    def __init__(self, timed: TimedTransport) -> None:
        """Whoever made the timed transport also closes it."""
        self._timed = timed

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; called by httpx."""
        content = await request.aread()
        timeout = {name: value for name, value in request.extensions.items() if name == "timeout"}
        sent = httpx.Request(
            request.method, request.url, headers=request.headers, content=content, extensions=timeout
        )
        response = await asyncio.to_thread(self._timed.handle_request, sent)  # with the graph's context
        assert isinstance(response.stream, httpx.SyncByteStream)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_AwaitedStream(response.stream),
            extensions=response.extensions,
        )


class _AwaitedStream(httpx.AsyncByteStream):
    """Waits for each piece in a thread."""

    def __init__(self, inner: httpx.SyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self._inner)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    async def aclose(self) -> None:
        await asyncio.to_thread(self._inner.close)
