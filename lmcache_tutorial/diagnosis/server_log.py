"""A line of a server's log -> what it says about a request. vLLM's forms, old and new, behind any prefix."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from .log_forms import parsed
from .logged import BrokenLineError

COLOR = re.compile(r"\x1b\[[0-9;]*m")
# What vLLM and uvicorn begin a line with; a container's or a collector's own prefix may stand in front.
LEVEL = re.compile(
    r"(?:^|[\s|\]])(?:\(\w+[^)\n]{0,40}pid=\d+\) ?)?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)(?=[ :])"
)
ACCESS = re.compile(r'"(?:GET|POST|PUT|HEAD|OPTIONS|DELETE|PATCH) \S+ HTTP/\d')
PREFIX = re.compile(r"^[\w./-]{1,60} +\| ")  # docker compose logs
LITERAL = r"'[^'\\]*(?:\\.[^'\\]*)*'|\"[^\"\\]*(?:\\.[^\"\\]*)*\"|None"
PROMPT = re.compile(
    r"(?:Received request (?P<old>\S+?): prompt: |Request (?P<new>\S+) details: prompt: )"
    rf"(?P<prompt>{LITERAL}), ",
    re.DOTALL,
)
CUT_PROMPT = re.compile(r"(?:Received request \S+?: prompt: |Request \S+ details: prompt: )")
IDS = re.compile(r"prompt_token_ids: \[(?P<ids>[\d, ]*)\]")
BODY = re.compile(r"Request (?P<number>\S+) JSON body: (?P<body>\{.*)", re.DOTALL)
RECEIVED = re.compile(r"Received request (?P<number>\S+?): params: ")
ADAPTER = re.compile(r"lora_request: LoRARequest\((?:[^)]*?lora_name=)?['\"](?P<name>[^'\"]*)")
HEAD_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """What a line tells: a request's number, and its body, its rendered prompt, or only that it came."""

    number: str
    body: object = None
    prompt: str | None = None
    ids: tuple[int, ...] | None = None
    adapter: str = ""


def is_server_line(line: str) -> bool:
    """Tell whether a line is one of a server's log, or of a web server's.

    >>> is_server_line('(APIServer pid=8) INFO:     127.0.0.1:43934 - "POST /v1/models HTTP/1.1" 200 OK')
    True
    """
    return bool(LEVEL.search(line[:HEAD_CHARACTERS]) or ACCESS.search(line[:2_000]))


def without_prefix(line: str) -> str:
    """Take off colours, and the name of a container."""
    plain = COLOR.sub("", line) if "\x1b" in line[:HEAD_CHARACTERS] else line
    return PREFIX.sub("", plain)


def entry_of(line: str) -> Entry | None:
    """Read what a line says about a request; ``None`` if it is about something else.

    Raises:
        BrokenLineError: it should hold a request, but was cut or cannot be read.
    """
    if match := BODY.search(line):
        return Entry(match["number"], body=_body(match["body"].strip()))
    if match := PROMPT.search(line):
        behind = line[match.end() :]
        prompt = None if match["prompt"] == "None" else _literal(match["prompt"])
        ids = _ids(behind) if prompt is None else None
        number = match["old"] or match["new"]
        if prompt is None and ids is None:
            return Entry(number)
        return Entry(number, prompt=prompt, ids=ids, adapter=_adapter(behind))
    if CUT_PROMPT.search(line[: 4 * HEAD_CHARACTERS]):
        raise BrokenLineError("the prompt is not whole; needed: a log whose lines are not cut")
    if match := RECEIVED.search(line[: 4 * HEAD_CHARACTERS]):
        return Entry(match["number"], adapter=_adapter(line))
    return None


def _body(text: str) -> object:
    try:
        return parsed(text)
    except BrokenLineError as error:
        raise BrokenLineError(
            f"the body of a request is not whole ({error}); needed: a log without --max-log-len"
        ) from None


def _literal(text: str) -> str:
    try:
        return str(ast.literal_eval(text)).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise BrokenLineError(f"its prompt is no text as Python prints it: {error}"[:200]) from None


def _ids(text: str) -> tuple[int, ...] | None:
    match = IDS.search(text)
    numbers = [one for one in match["ids"].replace(",", " ").split() if len(one) < 10] if match else []
    return tuple(map(int, numbers)) or None


def _adapter(text: str) -> str:
    match = ADAPTER.search(text)
    return match["name"] if match else ""
