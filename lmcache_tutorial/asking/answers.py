"""One streamed request to any OpenAI-compatible server -> what the gate needs of its answer.

Nothing is assumed of the server beyond the API: what it does not tell is ``None``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import httpx

from ..settings.secrets import redact
from .streams import read_stream

ANSWER_LIMIT_S = 120.0  # without a byte: a long cold prompt on a slow machine takes a minute
LONGEST = 5  # times as long may a whole answer take


class NoAnswerError(RuntimeError):
    """A request had no whole answer; the message says in a few words what came instead."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request had for an answer.

    Attributes:
        prompt_tokens: as the server counts them; ``None`` where it does not tell.
        cached_tokens: how many of them were not computed; ``None`` where it does not tell.
        ttft_s: request sent to first chunk with content, client clock [s].
        text: the answer.
        token: its first token, as the server writes it; empty where it does not tell.
        likely: the candidates for the first token, each with its log-probability [nats].
        generated: the answer's token ids; empty where the server does not tell.
    """

    prompt_tokens: int | None
    cached_tokens: int | None
    ttft_s: float
    text: str
    token: str = ""
    likely: Mapping[str, float] = field(default_factory=dict)
    generated: tuple[int, ...] = ()

    def distance(self, other: Answer) -> float | None:
        """Compute how far the log-probability of this answer's first token is from the other's [nats].

        ``inf``: it is none of the other's candidates. ``None``: a server that does not tell.

        >>> one = Answer(10, 0, 0.1, "Paris", "Paris", {"Paris": -0.1, "Rome": -2.5})
        >>> round(one.distance(Answer(10, 8, 0.1, "Rome", "Rome", {"Paris": -0.3, "Rome": -0.2})), 6)
        0.2
        """
        if not (self.likely and other.likely):
            return None
        return abs(self.likely[self.token] - other.likely.get(self.token, -inf))


def ask_streamed(
    client: httpx.Client, path: str, body: Mapping[str, Any], *, limit_s: float = ANSWER_LIMIT_S
) -> Answer:
    """Send one request and read its answer to the end.

    Args:
        client: knows the server's address, and the key that it asks for.
        path: of the API.
        body: what is asked; streaming and usage are added.
        limit_s: how long nothing may come [s].

    Raises:
        NoAnswerError: no whole answer came.
    """
    return read_answer(*timed_stream(client, path, body, limit_s=limit_s))


def timed_stream(
    client: httpx.Client, path: str, body: Mapping[str, Any], *, limit_s: float = ANSWER_LIMIT_S
) -> tuple[list[tuple[float, bytes]], float]:
    """Send one request; return the timed pieces of its answer, and when it was sent [s, client clock].

    Raises:
        NoAnswerError: no whole answer came.
    """
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    sent = time.perf_counter()
    pieces: list[tuple[float, bytes]] = []
    try:
        with client.stream("POST", path, json=asked, timeout=limit_s) as answer:
            for piece in answer.iter_raw():
                pieces.append((time.perf_counter(), piece))
                if pieces[-1][0] - sent > LONGEST * limit_s:  # comments, say, that keep the connection open
                    raise NoAnswerError(f"it did not end within {LONGEST * limit_s:g} s")
            status = answer.status_code
    except httpx.HTTPError as error:
        raise NoAnswerError(f"{type(error).__name__}: {error}") from None
    if status != httpx.codes.OK:
        text = b"".join(piece for _, piece in pieces).decode(errors="replace")
        raise NoAnswerError(f"HTTP {status}: {redact(text)[:300]}")
    return pieces, sent


def read_answer(pieces: Sequence[tuple[float, bytes]], sent: float) -> Answer:
    """Read an answer from the timed pieces of its stream.

    Raises:
        NoAnswerError: an error came within it, or it has no token.
    """
    try:
        found = read_stream(pieces)
    except ValueError as error:
        raise NoAnswerError(f"the stream is no JSON: {error}") from None
    if found.error:
        raise NoAnswerError(f"in the stream: {redact(found.error)[:300]}")
    if not found.times:
        raise NoAnswerError("the answer ended without a token")
    if not found.whole:
        raise NoAnswerError("the answer broke off")
    first = found.likely[0] if found.likely else {}
    likely = {one["token"]: float(one["logprob"]) for one in (*first.get("top_logprobs", ()), first) if one}
    return Answer(
        found.usage.get("prompt_tokens"),
        found.cached_tokens,
        found.times[0] - sent,
        found.text,
        first.get("token", ""),
        likely,
        tuple(_ids(found.likely)),
    )


def _ids(likely: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """Read the answer's token ids, where vLLM writes them in the tokens' place, up to the first that is none.

    >>> list(_ids([{"token": "token_id:17"}, {"token": "token_id:4"}])), list(_ids([{"token": "Paris"}]))
    ([17, 4], [])
    """
    for one in likely:
        name, _, number = str(one["token"]).partition(":")
        if name != "token_id" or not number.isdigit():
            return
        yield int(number)
