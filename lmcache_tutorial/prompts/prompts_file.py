"""A file of prompts, ``something.prompts.jsonl``: requests of an application, in groups that are gated.

Each line is a request of the OpenAI API, chat or completions, with two keys of ours: ``group`` names the
group that it belongs to (the file's name where it has none), and ``kv`` holds what the group is judged by.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from ..settings.bars import percent
from ..settings.errors import ConfigError

SUFFIX = ".prompts.jsonl"
ServedBy = Literal["any", "lmcache"]
TOLERANCE = 0.5  # nats: reuse changes rounding, another model's KV moves the first token by far more
# What decides the prompt, and so what is sent; the rest of a line (sampling, streaming) is ours to set.
CHAT = ("messages", "tools", "tool_choice", "chat_template_kwargs", "reasoning_effort", "cache_salt")
COMPLETION = ("prompt", "cache_salt")


class PromptsError(ValueError):
    """A file of prompts that cannot be used; the message names the line and says what to do."""


@dataclass(frozen=True, slots=True)
class GroupBars:
    """What a group is judged by; ``None`` is the run's bar.

    Attributes:
        min_hit_rate: the bar that the hit rate must exceed [per cent].
        min_ttft_drop: the bar that the drop of the TTFT must exceed [per cent].
        exact: every request must reuse the predicted number of tokens.
        served_by: ``lmcache`` where hits of the engine's own cache do not count.
        tolerance: how far the first token's log-probability may move by reuse [nats].
        times: whether the TTFT is judged. Without it few rounds are asked, for hits are integers.
    """

    min_hit_rate: float | None = None
    min_ttft_drop: float | None = None
    exact: bool = False
    served_by: ServedBy = "any"
    tolerance: float = TOLERANCE
    times: bool = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: what of it decides the prompt, the line that it stands in, and what else names it."""

    body: Mapping[str, Any]
    line: int
    label: str = ""

    @property
    def name(self) -> str:
        """How it is spoken of."""
        return self.label or f"line {self.line}"

    @property
    def salt(self) -> str:
        """The application's own salt: KV is shared only under the same one. Empty where it sends none."""
        return str(self.body.get("cache_salt") or "")

    @property
    def is_chat(self) -> bool:
        """Whether it is a chat, and no completion."""
        return "messages" in self.body

    @property
    def path(self) -> str:
        """Where such a request is sent."""
        return "/v1/chat/completions" if self.is_chat else "/v1/completions"


@dataclass(frozen=True)
class PromptGroup:
    """Requests that follow each other, and the bars that they are judged by."""

    name: str
    prompts: tuple[Prompt, ...] = ()
    bars: GroupBars = field(default_factory=GroupBars)


def segments(prompt: Prompt) -> list[tuple[str, str]]:
    """Name the parts of a request in their order, each with a hash by which a later run knows it again.

    >>> [name for name, _ in segments(Prompt({"messages": [{"role": "user", "content": "Hi"}]}, 1))]
    ['message 0, user']
    """
    body = prompt.body
    parts: list[tuple[str, Any]] = [("cache_salt", prompt.salt)] if prompt.salt else []
    if not prompt.is_chat:
        return [(name, _hash(part)) for name, part in (*parts, ("prompt", body["prompt"]))]
    apart = ("messages", "tools", "cache_salt")
    others = {name: body[name] for name in CHAT if name in body and name not in apart}
    parts += [("tools", body["tools"])] if body.get("tools") else []
    parts += [("options", others)] if others else []
    parts += [(f"message {place}, {one['role']}", one) for place, one in enumerate(body["messages"])]
    return [(name, _hash(part)) for name, part in parts]


def _hash(part: Any) -> str:
    """Hash a part; the order of keys counts, for templates write it."""
    return hashlib.sha256(json.dumps(part, ensure_ascii=False).encode()).hexdigest()[:16]


def read_prompts(path: Path) -> list[PromptGroup]:
    """Read a file of prompts; the groups in the order of their first lines.

    Raises:
        PromptsError: it cannot be read, has no request, or a line is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise PromptsError(f"{path.name} cannot be read: {error}.\nTo fix: save it as UTF-8 text") from None
    return parse_prompts(text.split("\n"), path.name)  # a text may hold other ends of lines, as U+2028


def parse_prompts(lines: Iterable[str], name: str) -> list[PromptGroup]:
    """Read the lines of a file of prompts; ``name`` is the file's.

    Raises:
        PromptsError: there is no request, or a line is none.
    """
    groups: dict[str, PromptGroup] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            _take(groups, _object(line), number, name.removesuffix(SUFFIX))
        except ValueError as error:
            raise PromptsError(f"{name}:{number}: {error}") from None
    if not any(group.prompts for group in groups.values()):
        raise PromptsError(
            f"{name} holds no request.\n"
            'To fix: write one a line, such as {"group": "manual", "messages": [{"role": "user", …}]}'
        )
    empty = [group.name for group in groups.values() if not group.prompts]
    if empty:
        raise PromptsError(
            f"{name}: the group {empty[0]!r} has bars and no request.\nTo fix: add its requests"
        )
    return list(groups.values())


def _take(groups: dict[str, PromptGroup], line: dict[str, Any], number: int, stem: str) -> None:
    """Put what a line says into its group."""
    named = line.get("group", stem)
    if not isinstance(named, str) or not named.strip() or not named.isprintable():
        raise ValueError(f"group must be a name, and is {named!r}.\nTo fix: name it, or leave it out")
    group = groups.setdefault(named, PromptGroup(named))
    if "kv" in line:
        if group.bars != GroupBars():
            raise ValueError(f"the group {named!r} has bars already.\nTo fix: give them in one line of it")
        group = replace(group, bars=_bars(line["kv"]))
    elif not ("messages" in line or "prompt" in line):
        raise ValueError(
            f"no messages and no prompt; it has {', '.join(map(repr, line)) or 'nothing'}.\n"
            "To fix: give it the request that your application sends"
        )
    if body := _body(line):
        group = replace(group, prompts=(*group.prompts, Prompt(body, number)))
    groups[named] = group


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}.\nTo fix: one request a line, without line breaks") from None
    if not isinstance(found, dict):
        raise ValueError(f"an object was expected, not {type(found).__name__}.\nTo fix: one request a line")
    return found


def _body(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the prompt; nothing where a line has bars alone."""
    if "messages" in line and "prompt" in line:
        raise ValueError("it has messages and a prompt.\nTo fix: leave one of them out")
    body = kept(line)
    messages = body.get("messages")
    if messages is not None and not (
        isinstance(messages, list) and messages and all(isinstance(m, dict) and "role" in m for m in messages)
    ):
        raise ValueError(
            "messages must be a list of objects that have a role.\nTo fix: as the OpenAI API has it"
        )
    if not isinstance(body.get("cache_salt", ""), str):
        raise ValueError(f"cache_salt must be a text, and is {body['cache_salt']!r}.\nTo fix: as vLLM has it")
    prompt = body.get("prompt")
    if "prompt" in body and not (isinstance(prompt, str) and prompt):
        raise ValueError("prompt must be a text.\nTo fix: one text a line")
    return body


def kept(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a request decides its prompt."""
    names = CHAT if "messages" in request else COMPLETION
    return {name: request[name] for name in names if name in request}


def _bars(given: Any) -> GroupBars:
    """Read what a group is judged by."""
    if not isinstance(given, dict):
        raise ValueError(f'kv must be an object, and is {given!r}.\nTo fix: {{"min_hit_rate": 90}}')
    known = [one.name for one in fields(GroupBars)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"kv has {name!r}, which is no setting; {meant}")
    bars = GroupBars(**given)
    _check(bars)
    return bars


def _check(bars: GroupBars) -> None:
    for name in ("min_hit_rate", "min_ttft_drop"):
        _check_percent(name, getattr(bars, name))
    if bars.served_by not in get_args(ServedBy):
        names = ", ".join(get_args(ServedBy))
        raise ValueError(f"served_by is {bars.served_by!r}, but must be one of {names}")
    for name in ("exact", "times"):
        if not isinstance(getattr(bars, name), bool):
            raise ValueError(f"{name} must be true or false, and is {getattr(bars, name)!r}")
    if bars.min_ttft_drop is not None and not bars.times:
        raise ValueError("min_ttft_drop is a bar of times.\nTo fix: leave it out, or times")
    if not (_is_number(bars.tolerance) and 0 <= bars.tolerance < inf):
        raise ValueError(f"tolerance must be a number from 0, and is {bars.tolerance!r}")


def _check_percent(name: str, value: Any) -> None:
    if value is None:
        return
    if not _is_number(value):
        raise ValueError(f"{name} must be a number in per cent, and is {value!r}")
    try:
        percent(name, value)
    except ConfigError:
        raise ValueError(f"{name} is {value!r}, but must be per cent: 0, or 1 to below 100") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
