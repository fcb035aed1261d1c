"""What the first token of a streamed answer is: the only definition, for every clock of this suite."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

DATA, DONE = b"data:", b"[DONE]"
END_OF_EVENT = re.compile(rb"\r?\n\r?\n")


class NoTokenError(RuntimeError):
    """A streamed answer ended without a token: there is no time to a first one."""


def token_text(choice: Mapping[str, Any]) -> str | None:
    """Return what one choice of an event adds to the answer, or ``None`` where it tells of no token.

    The first event of a chat has the role alone, and its content is empty. A completion's events each tell of
    a token, though a token may have no text of its own: half of a character, or a special token. A chat's
    server holds a text back that may become a tool call; where log-probabilities were asked for, they tell of
    its tokens all the same.

    Args:
        choice: an element of ``choices`` of OpenAI's streamed chat completions or completions.

    >>> token_text({"delta": {"role": "assistant", "content": ""}}) is None
    True
    >>> token_text({"delta": {"content": "Paris"}}), token_text({"text": ""})
    ('Paris', '')
    >>> token_text({"delta": {"content": None}, "logprobs": {"content": [{"token": "<tool"}]}})
    ''
    """
    delta = choice.get("delta")
    if delta is None:
        text = choice.get("text")
        return text if isinstance(text, str) else None
    functions = [call.get("function") or {} for call in delta.get("tool_calls") or []]
    pieces = [part for function in functions for part in (function.get("name"), function.get("arguments"))]
    spoken = [delta.get("reasoning"), delta.get("reasoning_content"), delta.get("content"), *pieces]
    text = "".join(piece for piece in spoken if piece)
    return text if text or (choice.get("logprobs") or {}).get("content") else None


def events(pieces: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Split timed pieces of a stream into its events: (arrival of the piece that completed it, event).

    Args:
        pieces: (arrival [s], bytes) in order; they may cut an event anywhere.

    Raises:
        ValueError: an event is no JSON.
    """
    buffer = b""
    for at, piece in pieces:
        *whole, buffer = END_OF_EVENT.split(buffer + piece)
        for event in whole:
            yield from ((at, found) for found in _data(event))
    with suppress(ValueError):  # a last event whose end was left out; where it is cut off it tells nothing
        yield from ((at, found) for found in _data(buffer))


def _data(event: bytes) -> Iterator[dict[str, Any]]:
    """Yield what an event carries; a comment, by which a server keeps a connection open, carries nothing."""
    for line in event.splitlines():
        if line.startswith(DATA) and (told := line.removeprefix(DATA).strip()) not in (b"", DONE):
            found = json.loads(told)
            if isinstance(found, dict):
                yield found


def read_to_first_token(lines: Iterator[str]) -> None:
    """Read a streamed answer, line by line, up to the one that tells of its first token.

    Raises:
        NoTokenError: it ended without one.
    """
    for line in lines:
        for event in _data(line.encode()):
            choices: Sequence[Mapping[str, Any]] = event.get("choices") or []
            if any(token_text(choice) is not None for choice in choices):
                return
    raise NoTokenError("the engine ended its answer without a token.")
