"""The meter: an HTTP transport that times each chat completion, and reads its stream when it has ended."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import httpx
from langchain_core.runnables.config import var_child_runnable_config

from ..machine.waiting import Waiting, read_waiting, waited_s
from ..quantities.records import Call
from ..servers.counters import CountersError, Snapshot
from ..stack.stack import Stack
from .streams import parse_stream
from .token_sources import token_sources

CLOSE_LIMIT_S = 5.0


class Meter(httpx.BaseTransport):
    """An HTTP transport that times each chat completion as its bytes pass, and splits its tokens."""

    def __init__(self, stack: Stack) -> None:
        """Count on ``stack``."""
        self._stack = stack
        self._inner = httpx.HTTPTransport()
        self._lock = threading.Lock()
        self._window, self._running, self._overlapped = 0, 0, False
        self._calls: list[Call] = []
        self._errors: list[Exception] = []
        self._mark: Snapshot | None = None
        self._waiting_mark: Waiting | None = None

    def begin(self) -> Snapshot:
        """Start a window: read the counters now, so that no request has to wait for that."""
        with self._lock:
            self._window += 1
            self._calls, self._errors, self._running, self._overlapped = [], [], 0, False
        self._mark = self._stack.snapshot()
        self._waiting_mark = self.waiting()
        return self._mark

    def finish(self) -> tuple[Call, ...]:
        """Return the window's calls in the order in which they ended.

        Raises:
            CountersError: what a call's meters disagreed on; or the window held no call.
        """
        if self._errors:
            raise self._errors[0]
        if not self._calls:
            raise CountersError("the graph made no request through ask's chat model: nothing was measured.")
        return tuple(self._calls)

    def waiting(self) -> Waiting:
        """Read how long this process and the servers that it talks to have waited for a processor."""
        return read_waiting([os.getpid(), *self._stack.front_pids])

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; called by httpx."""
        config = var_child_runnable_config.get() or {}
        node = str(config.get("metadata", {}).get("langgraph_node", ""))
        body = _json_object(request.content)
        with self._lock:
            window = self._window
            self._running += 1
            self._overlapped |= self._running > 1
        sent = _Sent(node, time.perf_counter(), body, window)
        try:
            response = self._inner.handle_request(request)
        except BaseException:
            self._end(window)
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        stream = _TimedStream(response.stream, self, sent, response.status_code == 200)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=stream, extensions=response.extensions
        )

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def ended(
        self, chunks: Sequence[tuple[float, bytes]], sent: _Sent, ok: bool, waiting: Waiting | None
    ) -> None:
        """Take in a finished response; called by its stream. One of an earlier window is dropped.

        ``waiting`` was read at the end of its answer; ``None`` where that was never reached.
        """
        if not self._end(sent.window) or not ok:
            return
        with self._lock:
            try:
                call = replace(parse_stream(chunks, node=sent.node, sent=sent.at), request=sent.body)
                self._calls.append(call if self._overlapped else self._with_counters(call, waiting))
            except Exception as error:  # raised by finish(): here it would end in the HTTP client
                self._errors.append(error)

    def _end(self, window: int) -> bool:
        """Count a response as ended; tell whether it belongs to the window that is open."""
        with self._lock:
            if window == self._window:
                self._running -= 1
            return window == self._window

    def _with_counters(self, call: Call, waiting: Waiting | None) -> Call:
        assert self._mark is not None
        assert self._waiting_mark is not None
        waited = waited_s(self._waiting_mark, waiting) if waiting else None
        before, self._mark = self._mark, self._stack.wait_counted(self._mark, [call.prompt_tokens])
        self._waiting_mark = self.waiting()  # the servers worked for the counters too
        worked = [
            engine.name
            for engine, then, now in zip(self._stack.engines, before.engines, self._mark.engines, strict=True)
            if now.prompt > then.prompt
        ]
        return replace(
            call,
            engine=" and ".join(worked),
            tokens=token_sources(before, self._mark, cached_tokens=call.cached_tokens),
            engine_ttft_s=self._mark.ttft_sum_s - before.ttft_sum_s,
            waited_s=waited,
        )


@dataclass(frozen=True, slots=True)
class _Sent:
    """What was sent, by which node, when [s, client clock], in which window of the meter."""

    node: str
    at: float
    body: dict[str, Any]
    window: int


class _TimedStream(httpx.SyncByteStream):
    """Passes bytes on untouched and remembers when each piece came; they are parsed after the last.

    A thread of its own reads them: were they stamped when the consumer asks for them, a consumer that is busy
    would make the time to the first token longer.
    """

    def __init__(self, inner: httpx.SyncByteStream, meter: Meter, sent: _Sent, ok: bool) -> None:
        self._inner, self._meter, self._sent, self._ok = inner, meter, sent, ok
        self._chunks: list[tuple[float, bytes]] = []
        self._waiting: Waiting | None = None
        self._arrived: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="meter", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for piece in self._inner:
                self._chunks.append((time.perf_counter(), piece))
                self._arrived.put(piece)
            self._waiting = self._meter.waiting()  # here, since this thread's own wait ends with it
            self._arrived.put(None)
        except BaseException as error:  # it belongs to whoever reads the answer
            self._arrived.put(error)

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._arrived.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def close(self) -> None:
        self._inner.close()
        self._reader.join(
            CLOSE_LIMIT_S
        )  # it ends with the stream; where that was closed early, at its next piece
        self._meter.ended(list(self._chunks), self._sent, self._ok, self._waiting)


def _json_object(content: bytes) -> dict[str, Any]:
    """Read a request's body; one that is no JSON object is empty."""
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
