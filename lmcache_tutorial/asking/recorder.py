"""An HTTP transport for an application's chat model: it notes what each request had for an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ..settings.secrets import redact
from .streams import Streamed, read_stream
from .timed import Ended, Sent, TimedTransport, asks_a_model, with_body

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One request of an application to its model, as the client saw it.

    Attributes:
        node: the node of a LangGraph graph that asked; empty outside any.
        prompt_tokens: as the server counts them; ``None`` where it does not tell.
        cached_tokens: how many of them were not computed; ``None`` where it does not tell.
        ttft_s: request sent to first chunk with content, client clock [s]; ``None`` where the answer was not
            streamed, for then nobody knows when its first token came.
        text: the answer.
        request: the body that the application made.
        generated: the answer's token ids; empty where the server does not tell.
    """

    node: str
    prompt_tokens: int | None
    cached_tokens: int | None
    ttft_s: float | None
    text: str
    request: Body = field(repr=False)
    generated: tuple[int, ...] = field(default=(), repr=False)


class Recorder(TimedTransport):
    """Notes every request to a model. ``calls`` are in the order in which they ended.

    ``errors`` tells of requests that were refused, or whose answers could not be read.
    """

    def __init__(self, change: Callable[[Body], Body]) -> None:
        """``change`` puts what the application asks into a namespace, before it is sent."""
        super().__init__()
        self._change, self._lock = change, threading.Lock()
        self.calls: list[ModelCall] = []
        self.errors: list[str] = []

    def prepared(self, request: httpx.Request, body: Body) -> httpx.Request:
        """Put a request to a model into the namespace; others are sent as they are."""
        if not asks_a_model(request):
            return request
        return with_body(request, self._change(body))

    def ended(self, sent: Sent, how: Ended) -> None:
        """Take in an answer that has ended; called by its stream."""
        if not sent.to_model:
            return
        raw = b"".join(piece for _, piece in how.pieces)
        with self._lock:
            try:
                if how.status != httpx.codes.OK:
                    raise ValueError(f"HTTP {how.status}: {redact(raw.decode(errors='replace'))[:300]}")
                read = _streamed if sent.body.get("stream") else _whole
                self.calls.append(read(sent, how, raw))
            except (ValueError, LookupError, TypeError) as error:
                self.errors.append(str(error))


def _streamed(sent: Sent, how: Ended, raw: bytes) -> ModelCall:
    found = read_stream(how.pieces)
    if found.error:
        raise ValueError(f"in the stream: {redact(found.error)[:300]}")
    if not found.times:
        raise ValueError("the answer ended without a token")
    if not found.whole:
        raise ValueError("the answer broke off")
    return _call(sent, found, found.times[0] - sent.at)


def _whole(sent: Sent, how: Ended, raw: bytes) -> ModelCall:
    """Read an answer that was not streamed; its one event is all of it."""
    found = json.loads(raw)
    choice = (found.get("choices") or [{}])[0]
    text = choice.get("text") or (choice.get("message") or {}).get("content") or ""
    generated = tuple(choice.get("token_ids") or ())
    told = Streamed((), text, (), generated, found.get("usage") or {}, {}, "")
    return _call(sent, told, None)


def _call(sent: Sent, found: Streamed, ttft_s: float | None) -> ModelCall:
    prompt_tokens = found.usage.get("prompt_tokens")
    told = (sent.node, prompt_tokens, found.cached_tokens, ttft_s, found.text, sent.body)
    return ModelCall(*told, found.generated)
