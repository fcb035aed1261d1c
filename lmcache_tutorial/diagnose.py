"""A log of chat requests -> what it reuses, what it could, and what stands in the way. Offline: no engine.

Requests are taken in the order of the log, as one engine with LMCache behind it would see them. Blocks are
remembered by a chain of hashes, the least recently used go first beyond a stated number.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .culprits import ADVICE, Place, difference, kind_of, place
from .diagnosis import Culprit, Diagnosis
from .logs import Log, Logged
from .predict import lmcache_reusable_tokens, shared_prefix_tokens
from .rendering import Renderer, RenderingError
from .replay import BlockMemory, Encoder

REMEMBERED_BLOCKS = 1_000_000
CANDIDATES = 32  # recent requests among which the one to compare with is looked for
BATCH = 64
ANCHOR = 48  # characters that must agree before a piece counts as the same
CONTEXT_CHARACTERS = 60
CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\n?|\Z)", re.DOTALL)
REORDERED = ("tool_order", "json_key_order", "whitespace", "retrieval_order")


@dataclass(slots=True)
class _Seen:
    request: Logged
    text: str
    ids: list[int]


def diagnose(
    lines: Iterable[str],
    renderer: Renderer,
    *,
    block_tokens: int,
    chunk_tokens: int,
    remembered_blocks: int = REMEMBERED_BLOCKS,
) -> Diagnosis:
    """Read a log and predict its reuse.

    Args:
        lines: the log, a request a line; see :mod:`logs` for the forms.
        renderer: the model's chat template and tokenizer.
        block_tokens: the engine's block, 1 or more.
        chunk_tokens: LMCache's chunk, a multiple of the block.
        remembered_blocks: how many blocks a cache holds before the oldest go.
    """
    log, memory = Log(lines), BlockMemory(block_tokens, remembered_blocks)
    recent: deque[_Seen] = deque(maxlen=CANDIDATES)
    causes: dict[tuple[str, str, int | None], list[Any]] = {}
    requests = prompt_tokens = reused_tokens = lost_tokens = 0
    for seen in _rendered(log, renderer):
        known, prompt = memory.visit(seen.ids), len(seen.ids)
        engine = min(known, (prompt - 1) // block_tokens * block_tokens) if prompt else 0
        reused = max(engine, lmcache_reusable_tokens(known, prompt, chunk_tokens) if prompt else 0)
        requests, prompt_tokens, reused_tokens = requests + 1, prompt_tokens + prompt, reused_tokens + reused
        if recent and prompt and (cause := _cause(recent, seen, reused, block_tokens, chunk_tokens)):
            at, kind, lost = cause
            lost_tokens += lost
            entry = causes.setdefault((kind, at.segment, at.message_index), [0, 0, *_context(at)])
            entry[0], entry[1] = entry[0] + lost, entry[1] + 1
        recent.append(seen)
    culprits = [
        Culprit(kind, segment, index, lost, count / requests, before, after, ADVICE[kind])
        for (kind, segment, index), (lost, count, before, after) in causes.items()
    ]
    return Diagnosis(
        requests=requests,
        prompt_tokens=prompt_tokens,
        hit_rate=reused_tokens / prompt_tokens if prompt_tokens else 0.0,
        best_hit_rate=(reused_tokens + lost_tokens) / prompt_tokens if prompt_tokens else 0.0,
        block_tokens=block_tokens,
        chunk_tokens=chunk_tokens,
        broken_lines=log.broken,
        other_lines=log.other,
        forgotten_blocks=memory.forgotten,
        culprits=sorted(culprits, key=lambda culprit: -culprit.lost_tokens),
    )


def _rendered(log: Log, renderer: Renderer) -> Iterator[_Seen]:
    encoder, texts = Encoder(renderer), _texts(log, renderer)
    while batch := list(islice(texts, BATCH)):
        for (request, text), ids in zip(batch, encoder.encode([text for _, text in batch]), strict=True):
            yield _Seen(_with_messages(request), text, ids)


def _texts(log: Log, renderer: Renderer) -> Iterator[tuple[Logged, str]]:
    for request in log:
        try:
            text = request.prompt
            yield request, renderer.text(request.messages, request.tools) if text is None else text
        except RenderingError:
            log.broken.append(log.number)


def _with_messages(request: Logged) -> Logged:
    """Read the messages back out of a prompt that was rendered in ChatML; else it is one user message."""
    if request.prompt is None:
        return request
    turns = [{"role": role, "content": text} for role, text in CHATML.findall(request.prompt)]
    if turns and turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    return Logged(tuple(turns or [{"role": "user", "content": request.prompt}]))


def _cause(
    recent: deque[_Seen], seen: _Seen, reused: int, block: int, chunk: int
) -> tuple[Place, str, int] | None:
    """Compare with the likeliest forerunner: where the two part, what did it, the tokens lost by it."""
    before = max(reversed(recent), key=lambda other: _likeness(other.request, seen.request))
    at = place(before.request, seen.request)
    if at is None:
        return _rendered_anew(before, seen, reused, block)
    kind = kind_of(before.request, seen.request, at)
    share = _common_behind(before.request, seen.request, at, kind) / max(1, len(seen.text))
    lost = min(int(share * len(seen.ids)), len(seen.ids) - 1 - reused) // block * block
    if lost >= block:
        return at, kind, lost
    shared = shared_prefix_tokens(before.ids, seen.ids)
    if block // 2 <= shared - reused and shared < chunk and at.segment in ("user", "history"):
        where = "system" if _starts_with_system(seen.request) else at.segment
        return Place(where, 0, at.first, at.second), "short_prefix", shared - reused
    return None


def _rendered_anew(before: _Seen, seen: _Seen, reused: int, block: int) -> tuple[Place, str, int] | None:
    """Find a chat template that renders earlier turns in another way once the conversation goes on."""
    at = difference(before.text, seen.text)
    tail = len(before.text.rpartition(str(before.request.messages[-1]["content"])[-20:])[2])
    behind = len(before.text) - tail - at
    lost = min(int(behind / len(seen.text) * len(seen.ids)), len(seen.ids) - 1 - reused) // block * block
    if behind <= 0 or lost < block:
        return None
    index, position = 0, 0
    for number, message in enumerate(seen.request.messages):
        position = seen.text.find(str(message["content"])[:40], position)
        if position > at:
            break
        index = number
    return Place("history", index, before.text, seen.text), "history_rewritten", lost


def _likeness(first: Logged, second: Logged) -> int:
    """Count the characters that two requests have in common, message by message; tools count a little."""
    common = int(bool(second.tools) and len(first.tools) == len(second.tools))
    for index, message in enumerate(second.messages):
        aligned = index < len(first.messages) and first.messages[index] == message
        common += int(aligned) + _alike_message(first, second, index)
    return common


def _common_behind(first: Logged, second: Logged, at: Place, kind: str) -> int:
    """Count the characters behind the divergence that the forerunner has too: what a better place saves."""
    start = difference(at.first, at.second)
    index = -1 if at.message_index is None else at.message_index
    later = range(index + 1, len(second.messages))
    if kind in ("history_rewritten", "history_trimmed"):  # had it been appended to, all of it would be there
        kept = sum(len(str(message["content"])) for message in second.messages[index:-1])
        had = sum(len(str(message["content"])) for message in first.messages[index:])
        return max(0, min(kept, had) - start)
    one, other = at.first[start:], at.second[start:]
    common = len(other) if kind in REORDERED else max(_alike(one, other), _common_block(one, other))
    common += sum(_alike_message(first, second, number) for number in later)
    if at.segment == "system" and second.tools == first.tools:
        common += sum(len(str(tool)) for tool in second.tools)
    return common


def _alike_message(first: Logged, second: Logged, index: int) -> int:
    message = second.messages[index]
    if message in first.messages:
        return len(str(message["content"]))
    if index < len(first.messages) and first.messages[index]["role"] == message["role"]:
        return _alike(str(first.messages[index]["content"]), str(message["content"]))
    return 0


def _alike(first: str, second: str) -> int:
    """Count the characters that two texts share at their start or at their end, whichever is more."""
    return max(difference(first, second), difference(first[::-1], second[::-1]))


def _common_block(first: str, second: str) -> int:
    """Count the characters of the longest piece found that stands in both texts, wherever it stands."""
    longest, position = 0, 0
    while position + ANCHOR <= len(second):
        found = first.find(second[position : position + ANCHOR])
        length = difference(first[found:], second[position:]) if found >= 0 else 0
        longest = max(longest, length)
        position += max(length, ANCHOR)
    return longest


def _starts_with_system(request: Logged) -> bool:
    return bool(request.messages) and request.messages[0]["role"] in ("system", "developer")


def _context(at: Place) -> tuple[str, str]:
    start = difference(at.first, at.second)
    before = at.second[max(0, start - CONTEXT_CHARACTERS) : start]
    return before, at.second[start : start + CONTEXT_CHARACTERS]
