"""The meter: an HTTP transport that times each chat completion, and reads its stream when it has ended."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import httpx

from ..machine.waiting import Waiting, read_waiting, waited_s
from ..quantities.records import Call
from ..servers.counters import CountersError, Snapshot
from ..stack.stack import Stack
from .streams import parse_stream
from .timed import Ended, Sent, TimedTransport
from .token_sources import token_sources


class Meter(TimedTransport):
    """An HTTP transport that times each chat completion as its bytes pass, and splits its tokens."""

    def __init__(self, stack: Stack) -> None:
        """Count on ``stack``."""
        super().__init__()
        self._stack = stack
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

    def begun(self) -> int:
        """Count a request as running."""
        with self._lock:
            self._running += 1
            self._overlapped |= self._running > 1
            return self._window

    def noted(self) -> Waiting:
        """Read at the end of an answer how long was waited for a processor."""
        return self.waiting()

    def failed(self, sent: Sent) -> None:
        """Count a request that had no answer as ended."""
        self._end(sent.window)

    def ended(self, sent: Sent, how: Ended) -> None:
        """Take in a finished response; called by its stream. One of an earlier window is dropped."""
        if not self._end(sent.window) or how.status != httpx.codes.OK:
            return
        with self._lock:
            try:
                call = parse_stream(how.pieces, node=sent.node, sent=sent.at)
                call = replace(call, request=dict(sent.body))
                self._calls.append(call if self._overlapped else self._with_counters(call, how.noted))
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
