"""Requests of a log -> a file of prompts: those that an application really sent become tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .logged import Logged


@dataclass(frozen=True)
class Chosen:
    """The lines of a file of prompts, and what was left out of it: repeated, too many, or token ids alone."""

    lines: tuple[str, ...]
    repeated: int = 0
    beyond: int = 0
    without_text: int = 0


def choose(requests: Iterable[Logged], group: str, most: int) -> Chosen:
    """Choose requests in their order: each text once, and no more than some.

    Args:
        requests: of a log.
        group: the name of the group that they become.
        most: how many; a group is asked seven times over.
    """
    lines: dict[str, None] = {}
    repeated = beyond = without_text = 0
    for body in map(_body, requests):
        if body is None:
            without_text += 1
            continue
        line = json.dumps({"group": group, **body}, ensure_ascii=False)
        if line in lines:
            repeated += 1
        elif len(lines) == most:
            beyond += 1
        else:
            lines[line] = None
    return Chosen(tuple(lines), repeated, beyond, without_text)


def left_out(chosen: Chosen) -> Iterator[str]:
    """Say what was left out, and why."""
    reasons = {
        "the same again": chosen.repeated,
        "beyond --most": chosen.beyond,
        "token ids without their text": chosen.without_text,
    }
    yield from (f"{count} {reason}" for reason, count in reasons.items() if count)


def _body(request: Logged) -> dict[str, Any] | None:
    salt = {"cache_salt": request.cache[1]} if request.cache[1] else {}
    if request.messages:
        tools = {"tools": list(request.tools)} if request.tools else {}
        return {"messages": [_sendable(one) for one in request.messages], **tools, **salt}
    return None if request.prompt is None else {"prompt": request.prompt, **salt}


def _sendable(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as the API takes it: the arguments of a tool call are a text there."""
    calls = [dict(call) for call in message.get("tool_calls") or []]
    for call in calls:
        function = call.get("function") or {}
        if isinstance(function.get("arguments"), Mapping):
            written = json.dumps(function["arguments"], ensure_ascii=False)
            call["function"] = {**function, "arguments": written}
    return {**message, "tool_calls": calls} if calls else dict(message)
