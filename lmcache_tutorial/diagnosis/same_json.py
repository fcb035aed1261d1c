"""Two texts with one JSON value, written in two ways: in another order, with other escapes or spaces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

BRACKET = re.compile(r"[{}\[\]]")
TRIED = 12  # values around a difference that are tried, from the inside and from the outside


def json_kind(first: str, second: str, at: int) -> str | None:
    """Name how a JSON value that spans a difference is written otherwise; ``None`` if its content differs.

    Takes time linear in the texts: only a few of the brackets that are open at the difference are tried.

    >>> json_kind('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 2)
    'json_key_order'
    """
    decoder = json.JSONDecoder()
    for begin in _open_brackets(first, at):
        try:
            one, end = decoder.raw_decode(first, begin)
            other, _ = decoder.raw_decode(second, begin)
            kind = value_kind(one, other) if end > at and one else None
        except (ValueError, RecursionError):
            continue
        if kind == "written":
            return "json_escaping" if _escapes_differ(first, second, at) else "whitespace"
        if kind:
            return kind
    return None


def value_kind(one: Any, other: Any) -> str | None:
    """Name how two values differ in order; ``written`` if not even that, ``None`` if in content."""
    if one == other:
        return "written" if json.dumps(one) == json.dumps(other) else "json_key_order"
    if type(one) is not type(other) or unordered(one) != unordered(other):
        return None
    return "retrieval_order" if _objects_move(one, other) else "array_order"


def unordered(value: Any) -> str:
    """Write a value so that neither the order of keys nor that of arrays shows."""
    if isinstance(value, dict):
        pairs = sorted(f"{json.dumps(key)}:{unordered(one)}" for key, one in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(sorted(map(unordered, value))) + "]"
    return json.dumps(value)


def _objects_move(one: Any, other: Any) -> bool:
    """Tell whether objects or texts, and not only words, change places in the first array that differs."""
    if isinstance(one, list) and isinstance(other, list):
        ordered = [json.dumps(item, sort_keys=True) for item in one]
        if ordered != [json.dumps(item, sort_keys=True) for item in other]:
            moved = any(isinstance(item, dict) or len(str(item)) >= 40 for item in one)
            return moved and sorted(map(unordered, one)) == sorted(map(unordered, other))
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return any(_objects_move(one[key], other[key]) for key in one if key in other)
    return False


def _open_brackets(text: str, at: int) -> Iterator[int]:
    """Yield the places of brackets that are open at a place, the innermost first, then the outermost."""
    stack: list[int] = []
    for match in BRACKET.finditer(text, 0, at + 1):
        if match[0] in "{[":
            stack.append(match.start())
        elif stack and match.start() < at:
            stack.pop()
    yield from reversed(stack[-TRIED:])
    yield from stack[:-TRIED][:TRIED]


def _escapes_differ(first: str, second: str, at: int) -> bool:
    return "\\" in first[max(0, at - 1) : at + 2] + second[max(0, at - 1) : at + 2]
