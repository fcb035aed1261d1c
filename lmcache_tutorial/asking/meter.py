"""The meter: an HTTP transport that times each chat completion, and reads its stream when it has ended."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import httpx
from langchain_core.runnables.config import var_child_runnable_config

from ..quantities.records import Call
from ..servers.counters import CountersError, Snapshot
from ..stack.stack import Stack
from .first_token import events, token_text
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

    def begin(self) -> Snapshot:
        """Start a window: read the counters now, so that no request has to wait for that."""
        with self._lock:
            self._window += 1
            self._calls, self._errors, self._running, self._overlapped = [], [], 0, False
        self._mark = self._stack.snapshot()
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

    def ended(self, chunks: Sequence[tuple[float, bytes]], sent: _Sent, ok: bool) -> None:
        """Take in a finished response; called by its stream. One of an earlier window is dropped."""
        if not self._end(sent.window) or not ok:
            return
        with self._lock:
            try:
                call = replace(parse_stream(chunks, node=sent.node, sent=sent.at), request=sent.body)
                self._calls.append(call if self._overlapped else self._with_counters(call))
            except Exception as error:  # raised by finish(): here it would end in the HTTP client
                self._errors.append(error)

    def _end(self, window: int) -> bool:
        """Count a response as ended; tell whether it belongs to the window that is open."""
        with self._lock:
            if window == self._window:
                self._running -= 1
            return window == self._window

    def _with_counters(self, call: Call) -> Call:
        assert self._mark is not None
        before, self._mark = self._mark, self._stack.wait_counted(self._mark, [call.prompt_tokens])
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
        self._arrived: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="meter", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for piece in self._inner:
                self._chunks.append((time.perf_counter(), piece))
                self._arrived.put(piece)
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
        self._meter.ended(list(self._chunks), self._sent, self._ok)


def _json_object(content: bytes) -> dict[str, Any]:
    """Read a request's body; one that is no JSON object is empty."""
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def parse_stream(chunks: Sequence[tuple[float, bytes]], *, node: str, sent: float) -> Call:
    """Read a streamed chat completion from its timed pieces.

    Args:
        chunks: (arrival on the client clock [s], bytes) in order; pieces may cut an event anywhere.
        node: the graph node that asked.
        sent: when the request was sent, same clock [s].

    Returns:
        The call, without a token split.

    Raises:
        CountersError: the stream has no content, or no usage (``stream_usage=True`` is needed), or the
            server does not report cached tokens (``--enable-prompt-tokens-details``).
    """
    answered = list(events(chunks))
    times: list[float] = []
    text: list[str] = []
    logprobs: list[float] = []
    generated: list[int] = []
    usage: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for at, event in answered:
        usage, metrics = event.get("usage") or usage, event.get("metrics") or metrics
        for choice in event.get("choices", []):
            if (piece := token_text(choice)) is not None:
                times.append(at)
                text.append(piece)
            generated += choice.get("token_ids") or []
            logprobs += [token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or []]
    details = usage.get("prompt_tokens_details")
    if not times or details is None:
        raise CountersError(
            f"a streamed answer with content and usage was expected; "
            f"{len(times)} pieces of content came, usage {usage}."
        )
    return Call(
        node=node,
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=details.get("cached_tokens") or 0,
        ttft_s=times[0] - sent,
        engine_ttft_s=None,
        queue_s=_seconds(metrics.get("queue_time_ms")),
        prefill_s=_seconds(metrics.get("time_to_first_token_ms")),
        text="".join(text),
        logprobs=tuple(logprobs),
        tokens=None,
        generated=tuple(generated),
    )


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
