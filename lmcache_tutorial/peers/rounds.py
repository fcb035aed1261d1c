"""Start peers side by side and measure them in turns, each request by a bare HTTP client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from ..asking.bare_client import first_token_s
from ..asking.first_token import NoTokenError
from ..machine.files import write_atomically
from ..prompts.documents import Document, fresh, full_text
from ..quantities.predict import engine_reusable_tokens, lmcache_reusable_tokens
from ..servers.counters import CountersError
from ..servers.process import ServerError
from ..settings.profiles import LessonSizes
from ..stack.stack import Stack
from .catalogue import PeerSet
from .findings import Sample, Start
from .seats import GiveUp, Seat

QUESTIONS: Mapping[Start, str] = {
    "cold": "\n\nWhich class stores a chunk?",
    "engine": "\n\nWhat decides which chunk is evicted first?",
    "outside": "\n\nWho reads a chunk back?",
}
CHARACTERS_A_TOKEN = 8  # more than any tokenizer here makes of a token on average
MANUAL = Document("peers", size="long", seed=10)


def measure(
    block: int,
    seats: Sequence[Seat],
    wanted: PeerSet,
    sizes: LessonSizes,
    give_up: GiveUp,
) -> Iterator[Sample]:
    """Measure every length in rounds; within a round the peers take turns, and each round another begins.

    ``give_up`` is told of a peer whose request failed; it is asked nothing more.
    """
    lengths = sorted(wanted.lengths(sizes).values())
    text = full_text(MANUAL, lengths[-1] * CHARACTERS_A_TOKEN)
    left = list(seats)

    def turn(seat: Seat, tokens: int, number: int) -> list[Sample]:
        try:
            return _round(seat, text, tokens, block, number)
        except (httpx.HTTPError, CountersError, NoTokenError, ServerError) as error:
            give_up(seat[0], error)
            left.remove(seat)
            seat[1].close()  # what is left of it must not take time from the others
            return []

    for seat in seats:
        turn(seat, lengths[0], -1)  # not kept: an engine's first prompts set things up
    for tokens in lengths:
        for number in range(wanted.rounds):
            shift = number % len(left) if left else 0
            for seat in [*left[shift:], *left[:shift]]:
                yield from turn(seat, tokens, number)


def _round(seat: Seat, text: str, tokens: int, block: int, number: int) -> list[Sample]:
    """Ask one new document cold, from the engine's cache and, where something is kept outside, from there."""
    peer, stack = seat
    stack.empty_lmcache()  # or a seat's memory would fill up, and a store that finds none free is dropped
    encode: Callable[[str], Any] = stack.renderer.tokenizer.encode
    shared = encode(fresh(text[: tokens * CHARACTERS_A_TOKEN])).ids[:tokens]
    samples = []
    for start, question in QUESTIONS.items():
        if start == "outside":
            if not (stack.caches or stack.config.engine.offload_gib is not None):
                break
            stack.empty_engine_cache()
        prompt = [*shared, *encode(question).ids]
        before = stack.snapshot()
        ttft_s = first_token_s(stack, "/v1/completions", {"prompt": prompt, "ignore_eos": True})
        after = stack.settle(before, [len(prompt)])
        predicted = _predicted(stack, start, tokens, len(prompt))
        engine, outside = after.engine - before.engine, after.external - before.external
        served = (after.computed - before.computed, engine, outside, predicted)
        samples.append(Sample(peer.name, block, tokens, number, start, ttft_s, *served))
    return samples


def _predicted(stack: Stack, start: Start, shared: int, prompt: int) -> int:
    if start == "cold":
        return 0
    if start == "outside" and stack.caches:
        return lmcache_reusable_tokens(shared, prompt, stack.chunk_tokens)
    return engine_reusable_tokens(shared, prompt, stack.block_tokens)


def save(document: Mapping[str, Any], path: Path) -> None:
    """Write a document, atomically: what was measured so far is there even if the run is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
