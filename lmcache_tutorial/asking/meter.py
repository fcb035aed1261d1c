"""The meter: an HTTP transport that times each chat completion, and reads its stream when it has ended."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from ..machine.waiting import Waiting, read_waiting, waited_s
from ..quantities.records import Call, TokenSources
from ..servers.counters import CountersError
from ..stack.stack import Stack
from .streams import parse_stream
from .timed import Ended, Sent, TimedTransport, with_body
from .witness import witness_of


class Meter(TimedTransport):
    """An HTTP transport that times each chat completion as its bytes pass, and splits its tokens."""

    def __init__(self, stack: Stack) -> None:
        """Count on ``stack``."""
        super().__init__()
        self._stack, self._witness = stack, witness_of(stack)
        self._lock = threading.Lock()
        self._window, self._running, self._overlapped = 0, 0, False
        self._calls: list[Call] = []
        self._errors: list[Exception] = []
        self._waiting_mark: Waiting | None = None

    def begin(self) -> None:
        """Start a window."""
        with self._lock:
            self._window += 1
            self._calls, self._errors, self._running, self._overlapped = [], [], 0, False
        self._witness.begin()
        self._waiting_mark = self.waiting()

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

    def window(self, calls: Sequence[Call]) -> TokenSources:
        """Wait until nothing of the window is under way; say who served its prompts.

        Raises:
            CountersError: the meters disagree.
        """
        return self._witness.window(calls)

    def prepared(self, request: httpx.Request, body: Mapping[str, Any]) -> httpx.Request:
        """Add what keeps the run's KV apart, where others use the engine too."""
        placed = self._witness.placed(body)
        return request if placed is body else with_body(request, placed)

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
                self._calls.append(call if self._overlapped else self._witnessed(call, how.noted))
            except Exception as error:  # raised by finish(): here it would end in the HTTP client
                self._errors.append(error)

    def _end(self, window: int) -> bool:
        """Count a response as ended; tell whether it belongs to the window that is open."""
        with self._lock:
            if window == self._window:
                self._running -= 1
            return window == self._window

    def _witnessed(self, call: Call, waiting: Waiting | None) -> Call:
        assert self._waiting_mark is not None
        waited = waited_s(self._waiting_mark, waiting) if waiting else None
        call = self._witness.saw(call)
        self._waiting_mark = self.waiting()  # the servers worked for the counters too
        return replace(call, waited_s=waited)
