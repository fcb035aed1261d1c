"""Bare requests, several at once, of which any may fail: what the client saw of each."""

from __future__ import annotations

import json
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx

from ..quantities.records import Call
from ..servers.counters import CountersError
from ..stack.stack import Stack
from .streams import parse_stream

REPLY_LIMIT_S = 90.0  # without a byte; longer than any time-out that a server here has


@dataclass(frozen=True, slots=True)
class Question:
    """A finished chat request: its messages, and the namespace in which its KV is kept (``cache_salt``).

    Without one it gets a new namespace; the same messages there are cold, and their answer is known. An empty
    one is no salt: the namespace of all requests without one.
    """

    messages: Sequence[Mapping[str, Any]]
    salt: str = field(default_factory=lambda: secrets.token_hex(8))
    answer_tokens: int = 1

    def body(self, model: str) -> dict[str, Any]:
        """Build the request: each token comes with its log-probability and that of the next likely one.

        The answer has as many tokens as were asked for: the model's wish to end it is passed over, which
        changes no log-probability.
        """
        asked: dict[str, Any] = {"model": model, "messages": list(self.messages)}
        asked |= {"cache_salt": self.salt} if self.salt else {}
        answer = {"max_tokens": self.answer_tokens, "temperature": 0, "logprobs": True, "top_logprobs": 2}
        answer["ignore_eos"] = True
        return {**asked, **answer, "stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client saw of one request.

    ``call`` is the answer, if it came whole; else ``error`` says in a few words what came instead.
    ``took_s`` is the time from the request to the answer's end, or to the error.
    """

    call: Call | None
    error: str
    took_s: float

    @property
    def answer(self) -> Call:
        """The answer.

        Raises:
            AssertionError: none came.
        """
        assert self.call, f"a request was lost after {self.took_s:.1f} s: {self.error}"
        return self.call

    def agrees(self, right: Call, tolerance: float) -> bool:
        """Tell whether it begins with the right tokens, with log-probabilities within a tolerance [nats]."""
        if self.call is None or not self.call.text.startswith(right.text):
            return False
        if len(self.call.logprobs) < len(right.logprobs):
            return False
        pairs = zip(self.call.logprobs, right.logprobs, strict=False)  # it may be longer
        return all(abs(one - other) <= tolerance for one, other in pairs)


def ask_bare(url: str, model: str, question: Question, *, limit_s: float = REPLY_LIMIT_S) -> Reply:
    """Send one request and read its answer to the end; whatever goes wrong is in the reply.

    Args:
        url: an engine's address, or a router's.
        model: the name that the engine serves.
        question: what is asked.
        limit_s: how long nothing may come [s].
    """
    pieces: list[tuple[float, bytes]] = []
    call, error = None, ""
    client = httpx.Client(timeout=limit_s, trust_env=False, verify=_certificates())
    sent = time.perf_counter()
    try:
        with (
            client,
            client.stream("POST", f"{url}/v1/chat/completions", json=question.body(model)) as answer,
        ):
            pieces += [(time.perf_counter(), piece) for piece in answer.iter_raw()]
            error = _refusal(answer.status_code, pieces)
        call = None if error else parse_stream(pieces, node="", sent=sent)
    except httpx.HTTPError as broken:
        error = f"{type(broken).__name__}: {broken}"
    except CountersError:
        error = "the answer broke off"
    return Reply(call, error, time.perf_counter() - sent)


@cache
def _certificates() -> ssl.SSLContext:
    """Read the certificates that are trusted, once: it takes 30 ms, as long as a short prompt on a GPU."""
    return httpx.create_ssl_context(trust_env=False)


def _refusal(status: int, pieces: Sequence[tuple[float, bytes]]) -> str:
    """Read an error from a status, or from an event within a stream that began well; empty without one."""
    body = b"".join(piece for _, piece in pieces)
    if status != httpx.codes.OK:
        return f"HTTP {status}: {body.decode(errors='replace')[:200]}"
    for line in body.splitlines():
        if line.startswith(b'data: {"error"'):
            told = json.loads(line.removeprefix(b"data: "))["error"]
            return f"in the stream: {told.get('message', told)}"[:200]
    return ""


class InFlight:
    """Requests that were sent at the same time, each from a thread of its own."""

    def __init__(self, stack: Stack, questions: Sequence[Question]) -> None:
        """Send them to where requests to the stack go."""
        self._threads = ThreadPoolExecutor(len(questions), thread_name_prefix="in flight")
        self._replies: list[Future[Reply]] = [
            self._threads.submit(ask_bare, stack.url, stack.model.name, question) for question in questions
        ]

    @property
    def under_way(self) -> int:
        """Count the requests that have neither an answer nor failed."""
        return sum(not reply.done() for reply in self._replies)

    def wait(self) -> None:
        """Wait until every request has an answer or has failed; each has a limit of its own."""
        wait(self._replies)

    def replies(self) -> tuple[Reply, ...]:
        """Wait for every request, and return what became of it, in the order of the questions."""
        with self._threads:
            return tuple(reply.result() for reply in self._replies)
