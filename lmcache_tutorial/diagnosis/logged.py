"""One request of a log, in the one form that the diagnosis works on, and why a line is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class BrokenLineError(ValueError):
    """A line, or a part of one, that cannot be read; the message says what it is and what is needed."""


@dataclass(frozen=True)
class Logged:
    """One request of a log: messages and tools; or the prompt, which was rendered already.

    ``prompt`` is its text and ``ids`` its token ids. ``special`` prompts get the tokenizer's own special
    tokens, as vLLM adds them to a completion's. ``cache`` tells apart what never shares KV: model or adapter,
    and salt. ``at`` is when it was asked [s since 1970], ``line`` where it stands.
    """

    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[Any, ...] = ()
    prompt: str | None = None
    ids: tuple[int, ...] | None = None
    special: bool = False
    cache: tuple[str, str] = ("", "")
    variables: dict[str, Any] = field(default_factory=dict)
    images: int = 0
    at: float | None = None
    line: int = 0
