"""The meter: an HTTP transport that times each chat completion, and reads its stream when it has ended."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import httpx
from langchain_core.runnables.config import var_child_runnable_config

from .counters import CountersError, token_sources
from .records import Call, Snapshot
from .stack import Stack


class Meter(httpx.BaseTransport):
    """An HTTP transport that times each chat completion as its bytes pass, and splits its tokens."""

    def __init__(self, stack: Stack) -> None:
        """Count on ``stack``."""
        self._stack = stack
        self._inner = httpx.HTTPTransport()
        self._lock = threading.Lock()
        self._running, self._overlapped = 0, False
        self._calls: list[Call] = []
        self._errors: list[Exception] = []
        self._mark: Snapshot | None = None

    def begin(self) -> Snapshot:
        """Start a window: read the counters now, so that no request has to wait for that."""
        self._calls, self._errors, self._overlapped = [], [], False
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
        with self._lock:
            self._running += 1
            self._overlapped |= self._running > 1
        sent = time.perf_counter()
        try:
            response = self._inner.handle_request(request)
        except BaseException:
            self._running -= 1
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        body = json.loads(request.content)
        stream = _TimedStream(response.stream, self, _Sent(node, sent, body), response.status_code == 200)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=stream, extensions=response.extensions
        )

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def ended(self, chunks: Sequence[tuple[float, bytes]], sent: _Sent, ok: bool) -> None:
        """Take in a finished response; called by its stream."""
        with self._lock:
            self._running -= 1
            if ok:
                try:
                    call = replace(parse_stream(chunks, node=sent.node, sent=sent.at), request=sent.body)
                    self._calls.append(call if self._overlapped else self._with_counters(call))
                except Exception as error:  # raised by finish(): here it would end in the HTTP client
                    self._errors.append(error)

    def _with_counters(self, call: Call) -> Call:
        assert self._mark is not None
        before, self._mark = self._mark, self._stack.wait_counted(self._mark, [call.prompt_tokens])
        if self._mark.prompt - before.prompt != call.prompt_tokens:
            raise CountersError(
                f"usage counts {call.prompt_tokens} prompt tokens, the engine "
                f"{self._mark.prompt - before.prompt}: somebody else uses this engine."
            )
        return replace(
            call,
            tokens=token_sources(before, self._mark, cached_tokens=call.cached_tokens),
            engine_ttft_s=self._mark.ttft_sum_s - before.ttft_sum_s,
        )


@dataclass(frozen=True, slots=True)
class _Sent:
    """What was sent, by which node, when [s, client clock]."""

    node: str
    at: float
    body: dict[str, Any]


class _TimedStream(httpx.SyncByteStream):
    """Passes bytes on untouched and remembers when each piece came; they are parsed after the last."""

    def __init__(self, inner: httpx.SyncByteStream, meter: Meter, sent: _Sent, ok: bool) -> None:
        self._inner, self._meter, self._sent, self._ok = inner, meter, sent, ok
        self._chunks: list[tuple[float, bytes]] = []

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            self._chunks.append((time.perf_counter(), piece))
            yield piece

    def close(self) -> None:
        self._inner.close()
        self._meter.ended(self._chunks, self._sent, self._ok)


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
    events = [(at, json.loads(data)) for at, data in _events(chunks) if data != b"[DONE]"]
    times: list[float] = []
    text: list[str] = []
    logprobs: list[float] = []
    generated: list[int] = []
    usage: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for at, event in events:
        usage, metrics = event.get("usage") or usage, event.get("metrics") or metrics
        for choice in event.get("choices", []):
            if content := _content(choice["delta"]):
                times.append(at)
                text.append(content)
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
        response_id=events[0][1]["id"],
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=details.get("cached_tokens") or 0,
        completion_tokens=usage["completion_tokens"],
        ttft_s=times[0] - sent,
        itl_s=tuple(after - before for before, after in pairwise(times)),
        engine_ttft_s=None,
        queue_s=_seconds(metrics.get("queue_time_ms")),
        prefill_s=_seconds(metrics.get("time_to_first_token_ms")),
        text="".join(text),
        logprobs=tuple(logprobs),
        tokens=None,
        generated=tuple(generated),
    )


def _content(delta: dict[str, Any]) -> str:
    """Return what a delta adds to the answer: text, or a piece of a tool call."""
    calls = [call.get("function") or {} for call in delta.get("tool_calls") or []]
    pieces = [part for call in calls for part in (call.get("name"), call.get("arguments"))]
    return "".join(piece for piece in [delta.get("content"), *pieces] if piece)


def _events(chunks: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """Split server-sent events: (arrival of the piece that completed it, data)."""
    buffer = b""
    for at, piece in chunks:
        buffer += piece
        while b"\n\n" in buffer:
            event, buffer = buffer.split(b"\n\n", 1)
            if event.startswith(b"data: "):
                yield at, event[6:]


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
