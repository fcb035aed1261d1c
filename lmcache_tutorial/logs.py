"""Logs -> chat requests: OpenAI-style lines, vLLM's request log, Langfuse exports, our own traces."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

VLLM_PROMPT = re.compile(r"Request \S+ details: prompt: (?P<prompt>(['\"]).*?(?<!\\)\2), prompt_token_ids: ")
VLLM_BODY = re.compile(r"Request \S+ JSON body: (?P<body>\{.*)")
VLLM_LINE = re.compile(r"^(\(\w+ pid=\d+\) )?(INFO|DEBUG|WARNING|ERROR) ")
OBSERVATION = "langfuse.observation."


class BrokenLineError(ValueError):
    """A line that is no request, and nothing else that the log is expected to hold."""


@dataclass(frozen=True)
class Logged:
    """One request of a log: messages and tools; or ``prompt``, the text that was rendered already."""

    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[Any, ...] = ()
    prompt: str | None = None


@dataclass
class Log:
    """Reads lines one by one; keeps the numbers of the broken ones, and how many were something else.

    ``number`` is the line that was read last.
    """

    lines: Iterable[str]
    broken: list[int] = field(default_factory=list)
    other: int = 0
    number: int = 0

    def __iter__(self) -> Iterator[Logged]:
        """Yield the requests in the order of the log."""
        bodies = False
        for line in self.lines:
            self.number += 1
            if not line.strip():
                continue
            try:
                requests = parse_line(line)
            except (BrokenLineError, RecursionError):
                self.broken.append(self.number)
                continue
            # vLLM writes a chat request twice, as it came and as it was rendered: once is enough.
            bodies = bodies or (bool(VLLM_LINE.match(line)) and any(one.prompt is None for one in requests))
            if bodies and any(one.prompt is not None for one in requests):
                requests = []
            self.other += not requests
            yield from requests


def parse_line(line: str) -> list[Logged]:
    """Read one line: the requests in it; none for a line that belongs in such a log but is no request.

    Raises:
        BrokenLineError: it is neither.

    >>> parse_line('{"messages": [{"role": "user", "content": "Hi"}]}')[0].messages[0]["content"]
    'Hi'
    """
    if VLLM_LINE.match(line):
        if match := VLLM_BODY.search(line):
            return [_request(_json(match["body"]))]
        match = VLLM_PROMPT.search(line)
        return [Logged(prompt=_literal(match["prompt"]))] if match else []
    try:
        document = json.loads(line)
    except ValueError as error:
        raise BrokenLineError(str(error)) from None
    if not isinstance(document, dict):
        raise BrokenLineError("not an object")
    if "resourceSpans" in document:
        return list(_otlp(document))
    for key in ("body", "request", "input"):  # batch files, proxies, Langfuse
        if "messages" not in document and key in document:
            if key == "input" and str(document.get("type", "GENERATION")).upper() != "GENERATION":
                return []
            inner = document[key]
            inner = _json(inner) if isinstance(inner, str) else inner
            document = {"messages": inner} if isinstance(inner, list) else inner
            if not isinstance(document, dict):
                raise BrokenLineError(f"{key} holds no request")
    return [_request(document)]


def _request(document: dict[str, Any]) -> Logged:
    messages, tools = document.get("messages"), document.get("tools") or ()
    if not isinstance(messages, list) or not messages or not isinstance(tools, list | tuple):
        raise BrokenLineError("no messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BrokenLineError("a message without a role")
    return Logged(
        tuple({**message, "content": _text(message.get("content"))} for message in messages), tuple(tools)
    )


def _text(content: Any) -> str:
    """Join the text parts of a message's content; images and the like have no tokens of their own here."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    raise BrokenLineError("a content that is neither text nor parts")


def _otlp(document: dict[str, Any]) -> Iterator[Logged]:
    for resource in document["resourceSpans"]:
        for scope in resource.get("scopeSpans", []):
            for span in scope.get("spans", []):
                found = {a["key"]: a["value"].get("stringValue") for a in span.get("attributes", [])}
                if found.get(OBSERVATION + "type") == "generation":
                    inner = _json(found.get(OBSERVATION + "input") or "null")
                    yield _request({"messages": inner} if isinstance(inner, list) else inner or {})


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BrokenLineError(str(error)) from None


def _literal(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError) as error:
        raise BrokenLineError(str(error)) from None
