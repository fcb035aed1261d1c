"""The table of puzzles: one hidden fault each, what shows it, and how what was said about it is judged."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..quantities.room import Room
from ..settings.errors import ConfigError
from ..settings.topology import StackConfig, TierConfig
from .puzzle_evidence import Evidence

WIDER = 8  # how many times as large as it is meant to be the other chunk is
PROMPTS = 24  # of the longest, that the stack as it is meant has room for: as if no two shared anything
PROMPTS_IN_MEMORY = 3  # that the memory which is too small has room for
KEPT = 2  # messages that the trim keeps, and the new one
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What the application is about to send: the turn of a session, counted from 1, and the request."""

    turn: int
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    salt: str = ""


def as_meant(config: StackConfig, room: Room) -> StackConfig:
    """The stack that the application is meant to run on: memory for everything, and files behind it."""
    tiers = (TierConfig("file_tier", planned_gib=room.tier_gib(PROMPTS)),)
    return replace(config, tiers=tiers).with_caches(tiers=(0,), memory_gib=room.cache_gib(PROMPTS))


def as_written(request: Request) -> Request:
    """The request as the application is meant to send it."""
    return request


@dataclass(frozen=True)
class Puzzle:
    """One fault.

    Attributes:
        number: by which it is asked for; the choices stand in another order.
        fault: what it is, in the words of a choice.
        words: what names it: beginnings of words in an answer.
        shows: what tells it from the others, as it is seen.
        means: what happened, and what to do about it.
        told_by: tells from the evidence whether it is this one.
        stack: makes its stack of a plain one.
        application: makes its requests of those that are meant.
        stale: the tier holds the KV of other texts under the names of what is about to be asked.
    """

    number: int
    fault: str
    words: tuple[str, ...]
    shows: str
    means: str
    told_by: Callable[[Evidence], bool]
    stack: Callable[[StackConfig, Room], StackConfig] = as_meant
    application: Callable[[Request], Request] = as_written
    stale: bool = False


def _too_small(config: StackConfig, room: Room) -> StackConfig:
    return as_meant(config, room).with_caches(memory_gib=room.cache_gib(PROMPTS_IN_MEMORY))


def _another_chunk(config: StackConfig, room: Room) -> StackConfig:
    return as_meant(config, room).with_caches(chunk_tokens=WIDER * config.caches[0].chunk_tokens)


def _no_connector(config: StackConfig, room: Room) -> StackConfig:
    return as_meant(config, room).with_engines(cache=None)


def _with_a_clock(request: Request) -> Request:
    system, *rest = request.messages
    text = f"It is {datetime.now():%Y-%m-%d %H:%M:%S.%f}. {system['content']}"
    return replace(request, messages=({**system, "content": text}, *rest))


def _another_order(request: Request) -> Request:
    at = request.turn % len(request.tools)
    return replace(request, tools=(*request.tools[at:], *request.tools[:at]))


def _a_salt_each(request: Request) -> Request:
    return replace(request, salt=secrets.token_hex(8))


def _trimmed(request: Request) -> Request:
    system, *rest = request.messages
    return replace(request, messages=(system, *rest[-KEPT - 1 :]))


def _files_at_first(found: Evidence) -> bool:
    return found.seen[0].files > 0


PUZZLES: tuple[Puzzle, ...] = (
    Puzzle(
        1,
        "the memory is too small",
        ("memory", "evict", "small"),
        "Later turns are served from files although nothing was restarted, and the very first request was "
        "not: what had been in LMCache's memory is not there any more.",
        "LMCache's memory had room for three of the longest prompts, and the sessions need more. It gave up "
        "what was not used for the longest time, and that is what is asked next. The files behind it saved "
        "the hits, but not their speed. Give LMCache the memory that the sessions need: the tokens of all "
        "of them times the KV bytes of a token, and a quarter more, for it evicts at four fifths.",
        told_by=lambda found: not _files_at_first(found) and any(one.files for one in found.of_turn(3)),
        stack=_too_small,
    ),
    Puzzle(
        2,
        "a clock stands in the system prompt",
        ("clock", "time", "date"),
        "The diagnosis names a timestamp in the system message, and next to nothing is reused.",
        "The application writes the time in front of its system prompt. Every request begins with tokens "
        "that no cache has seen, so all that follows is computed anew. Move the time to the end of the "
        "prompt, into the last message.",
        told_by=lambda found: found.names("timestamp", "system"),
        application=_with_a_clock,
    ),
    Puzzle(
        3,
        "the engine has no connector",
        ("connector", "connect"),
        "LMCache's counters stand still: it was asked for nothing, and nothing was stored in it.",
        "The engine was started without LMCache's connector. LMCache runs, and nobody asks it. Give the "
        "engine --kv-transfer-config with the kv_connector LMCacheMPConnector, and watch that look-ups are "
        "counted.",
        told_by=lambda found: found.looked_up == found.stored_chunks == 0,
        stack=_no_connector,
    ),
    Puzzle(
        4,
        "the order of the tools changes",
        ("tool", "order"),
        "The diagnosis names tool_order, and reuse ends where the tools begin: behind the system prompt.",
        "The application lists the same tools in another order from turn to turn. A template writes them "
        "near the front of the prompt, so all that follows is computed anew. Sort the tools by name before "
        "each request.",
        told_by=lambda found: found.names("tool_order"),
        application=_another_order,
    ),
    Puzzle(
        5,
        "the tier is stale",
        ("stale", "tier"),
        "The very first request is served from files, though nobody has asked anything before; and computed "
        "whole, it has another answer.",
        "The files hold KV of something else under the names of what is asked, as another model's are that "
        "was served under the same name. (Here the files of the prompts' own chunks were exchanged.) Hits "
        "look fine, and the answers are wrong: no counter shows that. Empty the tier when the weights "
        "change, or give each model a folder or a salt of its own.",
        told_by=_files_at_first,
        stale=True,
    ),
    Puzzle(
        6,
        "the history is trimmed",
        ("trim", "histor", "slid", "window"),
        "The diagnosis names history_trimmed: third turns reuse no more than the system prompt and the "
        "tools, and are shorter than they would be.",
        "The application drops the oldest messages at each turn. What it keeps stands at another place "
        "then, behind other tokens, and is computed anew. Append to the history; and where it must be cut, "
        "cut rarely and in large steps.",
        told_by=lambda found: found.names("history_trimmed"),
        application=_trimmed,
    ),
    Puzzle(
        7,
        "each request has another salt",
        ("salt", "namespace"),
        "The requests carry a cache_salt, each of them another one. Their prompts agree, look-ups are "
        "counted, and nothing is found.",
        "KV is shared only under the same salt, and the application draws a new one for each request. Use "
        "one salt for all who may share: for a customer, not for a request.",
        told_by=lambda found: found.salts > 1,
        application=_a_salt_each,
    ),
    Puzzle(
        8,
        "LMCache has another chunk",
        ("chunk",),
        "LMCache's server states another chunk than is meant, and all that it gives back are multiples of "
        "it: less than the prompts share.",
        "Somebody has set LMCache's chunk eight times as large. Only whole chunks are kept, so up to seven "
        "eighths of a large one are lost of each prompt, and texts that are shorter are not kept at all. "
        "Set --chunk-size back.",
        told_by=lambda found: found.chunk_tokens != found.meant_chunk_tokens,
        stack=_another_chunk,
    ),
)
CHOICES: tuple[Puzzle, ...] = tuple(sorted(PUZZLES, key=lambda one: one.fault.lower()))
"""The faults, in the order in which a reader chooses among them."""


def puzzle_of(number: int) -> Puzzle:
    """Return the puzzle of a number.

    Raises:
        ConfigError: there is none.
    """
    for one in PUZZLES:
        if one.number == number:
            return one
    raise ConfigError(f"there is no puzzle {number}.\nTo fix: a number from 1 to {len(PUZZLES)}, or random")


def said(text: str) -> Puzzle:
    """Understand what a reader says it is: the number of a choice, or words that name one fault.

    Raises:
        ConfigError: it names none, or more than one.

    >>> said("the clock, I think").fault, said("1") is CHOICES[0]
    ('a clock stands in the system prompt', True)
    """
    text = text.strip().lower()
    if re.fullmatch(r"\d{1,2}", text) and 1 <= int(text) <= len(CHOICES):
        return CHOICES[int(text) - 1]
    spoken = re.findall(r"[a-z]+", text)
    found = [one for one in CHOICES if _is_named(one.words, spoken)]
    if len(found) == 1:
        return found[0]
    heard = " and ".join(f"“{one.fault}”" for one in found) or "none of the faults"
    raise ConfigError(f"that names {heard}.\nTo fix: say one of these, or its number:\n{choices_text()}")


def choices_text() -> str:
    """List the faults, each with the number of its choice."""
    return "\n".join(f"  {place}  {one.fault}" for place, one in enumerate(CHOICES, 1))


def _is_named(words: Sequence[str], spoken: Sequence[str]) -> bool:
    return any(one.startswith(word) for word in words for one in spoken)
