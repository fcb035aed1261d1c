"""Requests told in plain lines: what each reused, by whom, as predicted or not, and where it parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

from ..prompts.layout import Reuse
from ..prompts.rendering import Rendered
from ..quantities.predict import reusable_tokens, shared_prefix_tokens
from ..quantities.records import Call
from ..quantities.sources import served_by
from ..stack.stack import Stack

SHOWN_BEFORE, SHOWN_AFTER = 32, 24  # characters around the first token that differs
SIDE_BY_SIDE = "(side by side)"  # of calls in parallel only their window has a split
HEAD = f"{'request':>7}{'prompt':>9}{'predicted':>11}{'reused':>9}  by"


def told(stack: Stack, calls: Sequence[Call]) -> str:
    """Tell requests that were asked in turn, the first of them cold.

    Args:
        stack: which renders prompts; its block and chunk decide. Its caches forget nothing meanwhile.
        calls: the requests, in their order. Those of another ``cache_salt`` share nothing.

    Returns:
        A table, and below it for each request but the first the first token in which it differs from the
        earlier one that it shares the most with.
    """
    prompts = [
        stack.renderer.render(call.request["messages"], call.request.get("tools", [])) for call in calls
    ]
    reuse = partial(reusable_tokens, block=stack.block_tokens, chunk=stack.chunk_tokens)
    return "\n".join(told_lines(prompts, calls, reuse))


def told_lines(prompts: Sequence[Rendered], calls: Sequence[Call], reuse: Reuse) -> Iterator[str]:
    """Yield the lines of :func:`told`, from what was rendered and what was measured."""
    yield HEAD
    partings = []
    for place, (prompt, call) in enumerate(zip(prompts, calls, strict=True)):
        kin = [at for at in range(place) if _salt(calls[at]) == _salt(call)]
        shared = {at: _shared(prompts[at], calls[at], prompt) for at in kin}
        longest = max(shared.values(), default=0)
        predicted = reuse(longest, len(prompt)) if longest else 0
        by = served_by(asdict(call.tokens)) if call.tokens else SIDE_BY_SIDE
        yield f"{place + 1:>7}{len(prompt):>9,}{predicted:>11,}{call.cached_tokens:>9,}  {by}"
        if kin:
            nearest = max(kin, key=lambda at: (shared[at], at))
            partings.append(parting(prompts[nearest], prompt, (nearest + 1, place + 1)))
    yield from partings


def parting(first: Rendered, second: Rendered, numbers: tuple[int, int]) -> str:
    """Say which token of a second prompt is the first to differ from another prompt, and how.

    Args:
        first: the earlier prompt.
        second: the later one.
        numbers: what both are called.
    """
    one, two = numbers
    token = shared_prefix_tokens(first.ids, second.ids)
    if token == len(second):
        return f"request {two} is, from its first token to its last, in request {one}"
    if token == len(first):
        return f"request {two} begins with all {token:,} tokens of request {one}"
    begin = second.offsets[token][0]
    before = second.text[max(0, begin - SHOWN_BEFORE) : begin]
    was = first.text[first.offsets[token][0] :][:SHOWN_AFTER]
    now = second.text[begin:][:SHOWN_AFTER]
    where = f"request {two} differs from request {one} first at token {token + 1:,} of {len(second):,}"
    return f"{where}, behind {before!r}: {was!r} -> {now!r}"


def _salt(call: Call) -> str:
    return str(call.request.get("cache_salt") or "")


def _shared(earlier: Rendered, call: Call, prompt: Rendered) -> int:
    """Count the tokens that a prompt shares with an earlier one and its answer, less the answer's last."""
    return shared_prefix_tokens((*earlier.ids, *call.generated[:-1]), prompt.ids)
