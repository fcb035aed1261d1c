"""Start peers side by side and measure them in turns, each request by a bare HTTP client."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from .config import LessonSizes, RunConfig, StackConfig, cache_folder
from .corpus import Document, fresh, full_text
from .counters import CountersError
from .doctor import resources
from .files import write_atomically
from .first_token import NoTokenError, read_to_first_token
from .model import Model
from .peers import Peer, PeerSet
from .predict import engine_reusable_tokens, lmcache_reusable_tokens
from .process import ServerError
from .samples import Sample, Start
from .stack import Stack, StackError, launch, wait_ready

GIB = 2**30
QUESTIONS: Mapping[Start, str] = {
    "cold": "\n\nWhich class stores a chunk?",
    "engine": "\n\nWhat decides which chunk is evicted first?",
    "outside": "\n\nWho reads a chunk back?",
}
ANSWER_TOKENS = 4
REQUEST_LIMIT_S = 120.0
CHARACTERS_A_TOKEN = 8  # more than any tokenizer here makes of a token on average
MANUAL = Document("peers", size="long", seed=10)
Seat = tuple[Peer, Stack]
GiveUp = Callable[[Peer, Exception], None]
"""Told of a peer that failed. If it returns, the others go on without that peer."""


def seat_config(plain: StackConfig, peer: Peer, model: Model, sizes: LessonSizes, seat: int) -> StackConfig:
    """Fit a peer's stack into a seat: memory for the longest prompt, and outside for two of them."""
    kv, context = model.kv_bytes_per_token(plain.dtype), sizes.long + max(512, sizes.long // 40)
    config = peer.config(plain)
    engine = max(0.25, math.ceil(10 * 1.03 * context * kv / GIB) / 10)
    kept = max(2, math.ceil(2.5 * sizes.long * kv / GIB))
    if plain.profile == "gpu":  # engines that compile at the same time must not share one folder of results
        folder = ("VLLM_CACHE_ROOT", str(cache_folder() / f"vllm-seat-{seat}"))
        config = replace(config, gpu_memory_share=0.3, environment=(*config.environment, folder))
    return replace(config, context_tokens=context, engine_memory_gib=engine, lmcache_memory_gib=kept)


@contextmanager
def seated(
    run: RunConfig,
    sizes: LessonSizes,
    model: Model,
    block: Sequence[Peer],
    progress: Callable[[str], None],
    give_up: GiveUp,
) -> Iterator[list[Seat]]:
    """Run the engines of one block side by side for the length of a ``with`` block.

    ``give_up`` is told of a peer whose servers did not start; it has no seat then.

    Raises:
        StackError: the machine has too little for all of them.
        ServerError: a program could not be executed; none is left running.
    """
    seats: list[Seat] = []
    configs = [seat_config(run.stack, peer, model, sizes, number) for number, peer in enumerate(block)]
    for check in resources(*configs):
        if not check.ok:
            together = " beside ".join(peer.name for peer in block)
            raise StackError(
                f"{check.name} is too small for {together}: {check.seen}.\nTo fix: {check.remedy}"
            )
    with ExitStack() as opened:  # closes every one, also where closing another fails
        for peer, config in zip(block, configs, strict=True):
            logs = run.report_dir / "logs" / peer.name.replace(" ", "-").replace(",", "")
            stack = launch(config, model, logs, progress)
            opened.callback(stack.close)
            seats.append((peer, stack))
        progress(f"peers: starting {' beside '.join(peer.name for peer in block)}")
        started = time.monotonic()
        for peer, stack in list(seats):
            try:
                wait_ready(stack, since=started)
            except ServerError as error:
                give_up(peer, error)
                seats.remove((peer, stack))
        yield seats


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
    lengths = [sizes.tokens(size) for size in wanted.sizes]
    text = full_text(MANUAL, sizes.long * CHARACTERS_A_TOKEN)
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
            if stack.config.offload == "none":
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
    if start == "outside" and stack.config.offload == "lmcache":
        return lmcache_reusable_tokens(shared, prompt, stack.chunk_tokens)
    return engine_reusable_tokens(shared, prompt, stack.block_tokens)


def first_token_s(stack: Stack, path: str, body: Mapping[str, Any]) -> float:
    """Send a streamed request with a bare HTTP client; return the time to its first token [s].

    The clock starts when the finished bytes are sent and stops at the first token, see :mod:`first_token`.
    The rest of the answer is read before this returns.

    Raises:
        NoTokenError: the answer ended without a token.
        httpx.HTTPError: there was no answer.
    """
    options = {"model": stack.model.name, "max_tokens": ANSWER_TOKENS, "temperature": 0, "stream": True}
    content = json.dumps({**options, **body}).encode()
    headers = {"content-type": "application/json"}
    sent = time.perf_counter()
    with stack.client.stream(
        "POST", stack.engine.url + path, content=content, headers=headers, timeout=REQUEST_LIMIT_S
    ) as answer:
        answer.raise_for_status()
        lines = answer.iter_lines()
        read_to_first_token(lines)
        first = time.perf_counter()
        for _ in lines:  # the rest of the answer must not fall into the next window
            pass
    return first - sent


def save(document: Mapping[str, Any], path: Path) -> None:
    """Write a document, atomically: what was measured so far is there even if the run is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
