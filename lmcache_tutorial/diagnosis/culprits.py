"""Two requests that part too early: which kind of change did it, and what to do about it. Pure text work."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .messages import IMAGE
from .same_json import json_kind, unordered
from .turns import Talk, Turn
from .volatile import is_identifier, is_time

ADVICE = {
    "timestamp": "Move the time to the end of the prompt: into the last user message.",
    "request_id": "Leave the id out of the prompt, or move it to the end.",
    "user_text_above_static": "Put the text that never changes first and the user's text below it.",
    "tool_order": "Sort the tools by name before each request.",
    "tools_changed": "Declare all tools from the start, in one order; say in the last message which to use.",
    "json_key_order": "Serialise with sorted keys.",
    "json_escaping": "Serialise with the same settings every time (ensure_ascii above all).",
    "array_order": "Sort the array before it is serialised; sort_keys does not touch arrays.",
    "whitespace": "Build the text in one place, and strip it the same way every time.",
    "history_rewritten": "Append to the history; do not change, summarise or re-render earlier turns.",
    "history_trimmed": "Trim rarely and in large steps: every trim costs the whole history.",
    "retrieval_order": "Sort the retrieved passages by a stable key, or put them behind all that is static.",
    "image": "Put images behind the text that stays the same: what follows another image is computed anew.",
    "short_prefix": "The shared prefix is shorter than a chunk: use a smaller chunk, or more static text.",
    "other": "Look at the text on both sides of the change.",
}
# Only the order or the spelling differs: once that is fixed, all of the text is the same.
REORDERED = (
    "tool_order",
    "json_key_order",
    "json_escaping",
    "array_order",
    "whitespace",
    "retrieval_order",
)
SUMMARY = re.compile(r"summar|so far|earlier|previous", re.I)
STATIC_CHARACTERS = 40  # as much equal text behind a change shows that something static was pushed down
TRIED_CUTS = 8
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


def place(first: Talk, second: Talk) -> Place | None:
    """Find the first part in which two requests differ; ``None`` if the second only continues the first.

    Tools count as standing in front, where templates write them, unless a system message differs too.
    """
    systems = second.systems
    index = _first_difference(first.turns, second.turns)
    if index is not None and index < systems:
        return _turn_place(first, second, index)
    one, other = _raw(first.tools), _raw(second.tools)
    if one != other:
        return Place("tools", None, one, other)
    if index is None or index >= len(first.turns):
        return None
    return _turn_place(first, second, index)


def kind_of(first: Talk, second: Talk, at: Place) -> str:
    """Name the change that made two requests part at a place; ``other`` if it is none of the usual."""
    if at.segment == "tools":
        return _tools_kind(first.tools, second.tools, at)
    fine = _text_kind(at.first, at.second)
    if fine in ("whitespace", "json_key_order", "json_escaping", "array_order"):
        return fine
    if at.segment != "system" and _trimmed(first, second):
        return "history_trimmed"
    if fine or at.segment == "history":
        return fine or "history_rewritten"
    start = difference(at.first, at.second)
    if _talked(second) and SUMMARY.search(at.second[max(0, start - 64) : start + 64]):
        return "history_rewritten"
    behind = common_suffix(at.first, at.second) >= STATIC_CHARACTERS
    known = set(first.turns)
    static_below = any(turn in known for turn in second.turns[(at.message_index or 0) + 1 :])
    tools_below = at.segment == "system" and bool(second.tools) and first.tools == second.tools
    return "user_text_above_static" if behind or static_below or tools_below else "other"


def difference(first: str, second: str) -> int:
    """Count the characters that two texts share from their start."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # slices compare in C
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle - 1)
    return low


def common_suffix(first: str, second: str) -> int:
    """Count the characters that two texts share at their end."""
    return difference(first[::-1], second[::-1])


def _first_difference(first: Sequence[Turn], second: Sequence[Turn]) -> int | None:
    """Return the index of the first turn of the second that the first has not there."""
    for index, turn in enumerate(second):
        if index >= len(first) or first[index] != turn:
            return index
    return None


def _talked(talk: Talk) -> bool:
    return any(role == "assistant" for role, _ in talk.turns)


def _turn_place(first: Talk, second: Talk, index: int) -> Place:
    role, text = second.turns[index]
    segment = "user"
    if role in ("system", "developer") and index < second.systems:
        segment = "system"
    elif index < len(second.turns) - 1 and any(r == "assistant" for r, _ in second.turns[index:]):
        segment = "history"  # an answer stands at or behind it, so it is an earlier turn
    other = first.turns[index][1] if index < len(first.turns) else ""
    return Place(segment, index, other, text)


def _text_kind(first: str, second: str) -> str | None:
    at = difference(first, second)
    if _in_image(first, at) and _in_image(second, at):
        return "image"
    if "".join(first.split()) == "".join(second.split()) or _spaces_differ(first, second, at):
        return "whitespace"
    if kind := json_kind(first, second, at):
        return kind
    if _same_passages(first, second, at):
        return "retrieval_order"
    if is_time(first, second, at):
        return "timestamp"
    return "request_id" if is_identifier(first, second, at) else None


def _in_image(text: str, at: int) -> bool:
    return any(match.start() <= at < match.end() for match in IMAGE.finditer(text, max(0, at - 20), at + 20))


def _spaces_differ(first: str, second: str, at: int) -> bool:
    """Tell whether only white space differs at the difference, and the texts go on alike behind it."""
    one, other = first[at:].lstrip(), second[at:].lstrip()
    moved = len(one) != len(first) - at or len(other) != len(second) - at or first[at - 1 : at].isspace()
    return (
        moved and len(one) > 0 and difference(one, other) >= min(STATIC_CHARACTERS, max(len(one), len(other)))
    )


def _same_passages(first: str, second: str, at: int) -> bool:
    """Tell whether most passages, or lines, stand in both texts, but in another order.

    The passage at the difference must be one that moved: else something else came first.
    """
    for split in (_paragraphs, _lines):
        one, other = [p for _, p in split(first)], [p for _, p in split(second)]
        counted, counted_other = Counter(one), Counter(other)
        alone = {p for p, n in counted.items() if n == 1} & {p for p, n in counted_other.items() if n == 1}
        if len(alone) < 2 or 2 * len(alone) <= max(len(counted), len(counted_other)):
            continue
        moved = [p for p in one if p in alone] != [p for p in other if p in alone]
        if moved and (_passage_at(split(first), at) in alone or _passage_at(split(second), at) in alone):
            return True
    return False


def _passage_at(passages: Iterator[tuple[int, str]], at: int) -> str:
    found = ""
    for begin, passage in passages:
        if begin > at:
            break
        found = passage
    return found


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    return _split(text, re.compile(r"\n\s*\n|(?=<doc)"))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    return _split(text, re.compile(r"\n"))


def _split(text: str, between: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Yield each passage without its label, and where it begins."""
    begin = 0
    for part in between.split(text):
        begin = max(begin, text.find(part, begin))
        if passage := LABELS.sub("", part).strip():
            yield begin, passage
        begin += len(part)


def _tools_kind(first: Sequence[Any], second: Sequence[Any], at: Place) -> str:
    try:
        if list(first) == list(second):
            return "json_key_order"
        if _sorted(first) == _sorted(second):
            return "tool_order"
        if list(map(unordered, first)) == list(map(unordered, second)):
            return "array_order"
        if sorted(map(unordered, first)) == sorted(map(unordered, second)):
            return "tool_order"
    except RecursionError:
        return "other"
    if _names(first) != _names(second):
        return "tools_changed"
    return _text_kind(at.first, at.second) or "other"


def _sorted(tools: Sequence[Any]) -> list[str]:
    return sorted(json.dumps(tool, sort_keys=True) for tool in tools)


def _names(tools: Sequence[Any]) -> list[str]:
    inner = (tool.get("function", tool) if isinstance(tool, dict) else tool for tool in tools)
    return sorted(str(one.get("name")) if isinstance(one, dict) else str(one) for one in inner)


def _trimmed(first: Talk, second: Talk) -> bool:
    """Tell whether the second history is the first without some of its oldest turns, and goes on."""
    one, other = first.turns[first.systems :], second.turns[second.systems :]
    if not other:
        return False
    cuts = [cut for cut in range(1, len(one)) if one[cut] == other[0]][:TRIED_CUTS]
    for cut in cuts:
        # A message alone that vanishes was put in and taken out again; turns that go have an answer.
        if cut == 1 and one[0][0] == "user" and one[1][0] != "assistant":
            continue
        rest = one[cut:]
        same = next((n for n, pair in enumerate(zip(rest, other, strict=False)) if pair[0] != pair[1]), None)
        matched = min(len(rest), len(other)) if same is None else same
        if matched >= max(1, len(rest) - 1):  # the last question itself may have been put in another way
            return True
    return False


def _raw(tools: Sequence[Any]) -> str:
    try:
        return "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    except RecursionError:
        return "\n".join("(nested too deeply)" for _ in tools)
