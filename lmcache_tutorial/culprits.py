"""Two requests that part too early: which kind of change did it, and what to do about it. Pure text work."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .logs import Logged

ADVICE = {
    "timestamp": "Move the time to the end of the prompt: into the last user message.",
    "request_id": "Leave the id out of the prompt, or move it to the end.",
    "user_text_above_static": "Put the text that never changes first and the user's text below it.",
    "tool_order": "Sort the tools by name before each request.",
    "json_key_order": "Serialise with sorted keys.",
    "whitespace": "Build the text in one place, and strip it the same way every time.",
    "history_rewritten": "Append to the history; do not change, summarise or re-render earlier turns.",
    "history_trimmed": "Trim rarely and in large steps: every trim costs the whole history.",
    "retrieval_order": "Sort the retrieved passages by a stable key, or put them behind all that is static.",
    "short_prefix": "The shared prefix is shorter than a chunk: use a smaller chunk, or more static text.",
    "other": "Look at the text on both sides of the change.",
}
MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
TIMESTAMP = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ,]*\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?"
    r"|\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\.?)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\.? {MONTH}(?:,? \d{{4}})?|{MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?"
    r"|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
    r"|\b1[5-9]\d{8}(?:\d{3})?(?:\.\d+)?\b"  # seconds or milliseconds since 1970
)
IDENTIFIER = re.compile(
    r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"
    r"|\b(?=[0-9a-zA-Z_-]*\d)[0-9A-Za-z]+(?:[_-][0-9A-Za-z]+)+\b"  # req-8f3a, user_42_b
    r"|\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{6,}\b"
    r"|\b(?=[0-9A-Z]*\d)(?=[0-9A-Z]*[A-Z])[0-9A-Z]{8,}\b"
    r"|(?i:\b(?:id|session|request|trace|run|ticket|conversation|user|order|nonce)\b[ #:=\"']*)\d+"
    r"|\b[A-Za-z]+\d{2,}\w*\b"  # u58234
    r"|\b\d{5,}\b"
)
SUMMARY = re.compile(r"summar|so far|earlier|previous", re.I)
STATIC_CHARACTERS = 40  # as much equal text behind a change shows that something static was pushed down
LABELS = re.compile(
    r"^\s*(?:\[?\(?\d+[\].):]|[-*•]|(?:passage|document|doc|source|chunk|context)\s*#?\d*\s*:)\s*", re.I
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where two requests part: ``tools``, ``system``, ``history`` or ``user``, and the message's index."""

    segment: str
    message_index: int | None
    first: str
    second: str


def place(first: Logged, second: Logged) -> Place | None:
    """Find the first part in which two requests differ; ``None`` if the second only continues the first.

    Tools count as standing in front, where templates write them, unless a system message differs too.
    """
    systems = _systems(second.messages)
    for index in range(systems):
        if index >= len(first.messages) or first.messages[index] != second.messages[index]:
            return _message_place(first, second, index)
    if list(first.tools) != list(second.tools) or _raw(first.tools) != _raw(second.tools):
        return Place("tools", None, _raw(first.tools), _raw(second.tools))
    for index in range(systems, len(second.messages)):
        if index >= len(first.messages):
            return None
        if first.messages[index] != second.messages[index]:
            return _message_place(first, second, index)
    return None


def kind_of(first: Logged, second: Logged, at: Place) -> str:
    """Name the change that made two requests part at a place; ``other`` if it is none of the usual."""
    if at.segment == "tools":
        return _tools_kind(first.tools, second.tools) or _text_kind(at.first, at.second) or "other"
    fine = _text_kind(at.first, at.second)
    trimmed = at.segment != "system" and _trimmed(first.messages, second.messages)
    if trimmed or (at.segment == "history" and not fine):
        return "history_trimmed" if trimmed else "history_rewritten"
    if fine:
        return fine
    start = difference(at.first, at.second)
    if _talked(second) and SUMMARY.search(at.second[max(0, start - 64) : start + 64]):
        return "history_rewritten"
    behind = _common_suffix(at.first, at.second) >= STATIC_CHARACTERS
    static_below = any(
        message in first.messages for message in second.messages[(at.message_index or 0) + 1 :]
    )
    tools_below = at.segment == "system" and bool(second.tools) and first.tools == second.tools
    return "user_text_above_static" if behind or static_below or tools_below else "other"


def _talked(request: Logged) -> bool:
    return any(message["role"] == "assistant" for message in request.messages)


def difference(first: str, second: str) -> int:
    """Count the characters that two texts share from their start."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # slices compare in C
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[:middle] == second[:middle] else (low, middle - 1)
    return low


def _common_suffix(first: str, second: str) -> int:
    return difference(first[::-1], second[::-1])


def _message_place(first: Logged, second: Logged, index: int) -> Place:
    message, messages = second.messages[index], second.messages
    last_user = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=-1)
    answered = any(m["role"] == "assistant" for m in messages[index:last_user])  # else it is no earlier turn
    role = "history" if index < last_user and answered else "user"
    segment = "system" if message["role"] in ("system", "developer") else role
    other = first.messages[index]["content"] if index < len(first.messages) else ""
    return Place(segment, index, other, message["content"])


def _text_kind(first: str, second: str) -> str | None:
    at = difference(first, second)
    if "".join(first.split()) == "".join(second.split()) or _spaces_differ(first, second, at):
        return "whitespace"
    for kind, pattern in (("timestamp", TIMESTAMP), ("request_id", IDENTIFIER)):
        if _covered(first, at, pattern) and _covered(second, at, pattern):
            return kind
    if _same_json(first, second, at):
        return "json_key_order"
    return "retrieval_order" if _same_passages(first, second) else None


def _spaces_differ(first: str, second: str, at: int) -> bool:
    """Tell whether only white space differs at the difference, and the texts go on alike behind it."""
    one, other = first[at:].lstrip(), second[at:].lstrip()
    moved = len(one) != len(first) - at or len(other) != len(second) - at or first[at - 1 : at].isspace()
    return (
        moved and len(one) > 0 and difference(one, other) >= min(STATIC_CHARACTERS, max(len(one), len(other)))
    )


def _covered(text: str, at: int, pattern: re.Pattern[str]) -> bool:
    start = max(0, at - 64)
    return any(
        match.start() + start <= at <= match.end() + start
        for match in pattern.finditer(text[start : at + 64])
    )


def _same_json(first: str, second: str, at: int) -> bool:
    """Tell whether some JSON object that spans the difference has the same content in both texts."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[{\[]", first[: at + 1]):
        begin = match.start()
        try:
            one, end = decoder.raw_decode(first, begin)
            other, _ = decoder.raw_decode(second, begin)
        except ValueError:
            continue
        if end > at and one == other and isinstance(one, dict | list) and one:
            return True
    return False


def _same_passages(first: str, second: str) -> bool:
    """Tell whether most passages, or lines, stand in both texts, but in another order."""
    for split in (_paragraphs, _lines):
        one, other = split(first), split(second)
        alone = {p for p, count in Counter(one).items() if count == 1} & {
            p for p, count in Counter(other).items() if count == 1
        }
        in_first, in_second = [p for p in one if p in alone], [p for p in other if p in alone]
        if len(alone) >= 2 and 2 * len(alone) > max(len(one), len(other)) and in_first != in_second:
            return True
    return False


def _paragraphs(text: str) -> list[str]:
    return [LABELS.sub("", part).strip() for part in re.split(r"\n\s*\n|(?=<doc)", text) if part.strip()]


def _lines(text: str) -> list[str]:
    return [LABELS.sub("", part).strip() for part in text.splitlines() if part.strip()]


def _tools_kind(first: Sequence[Any], second: Sequence[Any]) -> str | None:
    if list(first) == list(second):
        return "json_key_order"
    key: Callable[[Any], str] = lambda tool: json.dumps(tool, sort_keys=True)  # noqa: E731
    return "tool_order" if sorted(map(key, first)) == sorted(map(key, second)) else None


def _trimmed(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Tell whether the second history is the first without some of its oldest turns, and goes on."""
    one, other = first[_systems(first) :], second[_systems(second) :]
    for cut in range(1, len(one)):
        rest = one[cut:]
        same = next((n for n, pair in enumerate(zip(rest, other, strict=False)) if pair[0] != pair[1]), None)
        matched = min(len(rest), len(other)) if same is None else same
        if matched >= max(1, len(rest) - 1):  # the last question itself may have been put in another way
            return True
    return False


def _systems(messages: Sequence[Any]) -> int:
    count = 0
    while count < len(messages) and messages[count]["role"] in ("system", "developer"):
        count += 1
    return count


def _raw(tools: Sequence[Any]) -> str:
    return "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
