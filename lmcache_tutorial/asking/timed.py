"""An HTTP transport that passes requests on, and times each answer's pieces as they come."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import httpx

from ..settings.connections import CONNECTIONS

CLOSE_LIMIT_S = 5.0
LONGEST_ANSWER_S = 1800.0  # a server may send comments for ever, by which it keeps the connection open
LANGCHAINS_CONFIG = "langchain_core.runnables.config"
REPLACED = ("content-length", "accept-encoding")  # httpx gives names in small letters
Pieces = Sequence[tuple[float, bytes]]  # (arrival on the client clock [s], bytes)


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent, by which node of a graph, when [s, client clock], in which window of whoever counts.

    ``to_model`` tells a question to a model from whatever else a client may send.
    """

    node: str
    at: float
    body: Mapping[str, Any]
    window: int
    to_model: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """How an answer ended: its status, its pieces, and what was noted at its end; ``None`` without one."""

    status: int
    pieces: Pieces
    noted: Any = None


class TimedTransport(httpx.BaseTransport):
    """Passes requests on. Its kinds say what is done when one begins, and when its answer has ended."""

    def __init__(self) -> None:
        """Open no connection yet."""
        self._inner: httpx.BaseTransport = httpx.HTTPTransport(limits=CONNECTIONS)

    def begun(self) -> int:
        """Take note of a request that is about to be sent; return the window that it belongs to."""
        return 0

    def prepared(self, request: httpx.Request, body: Mapping[str, Any]) -> httpx.Request:
        """Return the request as it is to be sent."""
        return request

    def noted(self) -> Any:
        """Read something at the very end of an answer; called in the thread that reads it."""
        return None

    def failed(self, sent: Sent) -> None:
        """Take note of a request that had no answer."""

    def ended(self, sent: Sent, how: Ended) -> None:
        """Take in an answer that has ended."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; called by httpx."""
        body = json_object(request.content)
        prepared = self.prepared(request, body)
        window = self.begun()
        node, to_model = graph_node(), asks_a_model(request)
        sent = Sent(node, time.perf_counter(), body, window, to_model)
        try:
            response = self._inner.handle_request(prepared)
        except BaseException:
            self.failed(sent)
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_TimedStream(response.stream, self, sent, response.status_code),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class _TimedStream(httpx.SyncByteStream):
    """Passes bytes on untouched and remembers when each piece came; they are parsed after the last.

    A thread of its own reads them: were they stamped when the consumer asks for them, a consumer that is busy
    would make the time to the first token longer.
    """

    def __init__(
        self, inner: httpx.SyncByteStream, transport: TimedTransport, sent: Sent, status: int
    ) -> None:
        self._inner, self._transport, self._sent, self._status = inner, transport, sent, status
        self._pieces: list[tuple[float, bytes]] = []
        self._noted: Any = None
        self._arrived: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="meter", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for piece in self._inner:
                self._pieces.append((time.perf_counter(), piece))
                self._arrived.put(piece)
                if self._pieces[-1][0] - self._sent.at > LONGEST_ANSWER_S:
                    raise httpx.ReadTimeout(f"the answer did not end within {LONGEST_ANSWER_S:g} s")
            self._noted = self._transport.noted()  # here, since this thread's own wait ends with it
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
        self._transport.ended(self._sent, Ended(self._status, list(self._pieces), self._noted))


def graph_node() -> str:
    """Name the node of a LangGraph graph within which this is called; empty outside, or without LangChain."""
    module = sys.modules.get(LANGCHAINS_CONFIG)
    config = (module.var_child_runnable_config.get() if module else None) or {}
    return str(config.get("metadata", {}).get("langgraph_node", ""))


def asks_a_model(request: httpx.Request) -> bool:
    """Tell a question to a model, a chat or a completion, from other requests."""
    return request.method == "POST" and request.url.path.endswith("/completions")


def with_body(request: httpx.Request, body: Mapping[str, Any]) -> httpx.Request:
    """Return a request with another body. A compressed answer would arrive in other pieces: none is asked."""
    headers = [(name, value) for name, value in request.headers.multi_items() if name not in REPLACED]
    return httpx.Request(
        request.method,
        request.url,
        headers=[*headers, ("accept-encoding", "identity")],
        content=json.dumps(body).encode(),
        extensions=request.extensions,
    )


def json_object(content: bytes) -> dict[str, Any]:
    """Read a request's body; one that is no JSON object is empty."""
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
