"""Where two prompts part, as the data of a picture: tokens, blocks, chunks, what of them can be reused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

from ..quantities.predict import engine_reusable_tokens, lmcache_reusable_tokens, shared_prefix_tokens
from .layout import Layout

SMALL_CHUNK = 64  # tokens; of chunks up to this size two are shown left of the parting's own, else one
CHUNKS_AFTER = 2  # from the one that the parting lies in
WORDS_BEFORE, WORDS_AFTER = 10, 28
TEMPLATE = "template"  # the name of what no segment owns
COLUMNS = ("shown as", "prompt", "tokens before it", "tokens", "segment", "text", "in both prompts")


def prefix_chart(first: Layout, second: Layout, *, block: int, chunk: int) -> dict[str, Any]:
    """Describe two prompts around the place where they part.

    Args:
        first: the prompt whose KV is kept.
        second: the prompt that is asked next.
        block: tokens of the engine's KV block.
        chunk: tokens of LMCache's chunk.

    Returns:
        A chart of the results.json contract. Its rows are runs of tokens of one segment, equal in both
        prompts or not, inside ``window``, and the single tokens around the parting; ``shared`` is the first
        token that differs, ``equal_at_end`` the tokens at the end that are equal in both, and ``reused`` what
        the engine's own cache and an LMCache by itself are predicted to serve of the second prompt.
    """
    prompts = {"first": first, "second": second}
    ids = [layout.rendered.ids for layout in prompts.values()]
    shared, equal_at_end = shared_prefix_tokens(*ids), _equal_at_end(*ids)
    parting_chunk = shared // chunk * chunk
    chunks_before = 2 if chunk <= SMALL_CHUNK else 1
    window = (
        max(0, parting_chunk - chunks_before * chunk),
        min(max(map(len, ids)), parting_chunk + CHUNKS_AFTER * chunk),
    )
    equal = _equal_places(*ids, shared=shared, equal_at_end=equal_at_end)
    rows = [
        row
        for (name, layout), places in zip(prompts.items(), equal, strict=True)
        for row in (*_runs(name, layout, window, places), *_words(name, layout, shared, places))
    ]
    return {
        "kind": "prefix",
        "axis": "tokens",
        "columns": list(COLUMNS),
        "rows": rows,
        "block": block,
        "chunk": chunk,
        "tokens": {name: len(layout.rendered) for name, layout in prompts.items()},
        "shared": shared,
        "equal_at_end": equal_at_end,
        "window": list(window),
        "reused": {
            "engine": engine_reusable_tokens(shared, len(ids[1]), block),
            "lmcache_l1": lmcache_reusable_tokens(shared, len(ids[1]), chunk),
        },
    }


def _equal_at_end(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens that two prompts share from their end, none of them left of the parting.

    >>> _equal_at_end([1, 2, 3, 9, 9], [1, 2, 4, 5, 9, 9]), _equal_at_end([1, 2], [1, 2])
    (2, 0)
    """
    right = min(len(first), len(second)) - shared_prefix_tokens(first, second)
    return shared_prefix_tokens(first[::-1][:right], second[::-1][:right])


def _equal_places(
    first: Sequence[int], second: Sequence[int], *, shared: int, equal_at_end: int
) -> tuple[set[int], set[int]]:
    """Find the tokens of each prompt that stand in the other too: the head, the end, words between them.

    Words between are looked for only where single tokens are shown.
    """
    places = tuple({*range(shared), *range(len(ids) - equal_at_end, len(ids))} for ids in (first, second))
    near = [ids[shared : shared + WORDS_AFTER] for ids in (first, second)]
    for one, other, length in SequenceMatcher(a=near[0], b=near[1], autojunk=False).get_matching_blocks():
        places[0].update(range(shared + one, shared + one + length))
        places[1].update(range(shared + other, shared + other + length))
    return places[0], places[1]


def _runs(name: str, layout: Layout, window: tuple[int, int], equal: set[int]) -> Iterator[list[Any]]:
    """Yield the runs of tokens of one segment and one state inside the window."""
    begin, end = window[0], min(window[1], len(layout.rendered))
    start = begin
    for place in range(begin, end):
        here = (layout.owners[place], place in equal)
        after = (layout.owners[place + 1], place + 1 in equal) if place + 1 < end else None
        if here != after:
            yield ["run", name, start, place + 1 - start, here[0] or TEMPLATE, "", _word(here[1])]
            start = place + 1


def _words(name: str, layout: Layout, shared: int, equal: set[int]) -> Iterator[list[Any]]:
    """Yield the single tokens around the parting with their text."""
    first, last = max(0, shared - WORDS_BEFORE), min(len(layout.rendered), shared + WORDS_AFTER)
    for place in range(first, last):
        begin, end = layout.rendered.offsets[place]
        text = layout.rendered.text[begin:end]
        yield ["token", name, place, 1, layout.owners[place] or TEMPLATE, text, _word(place in equal)]


def _word(equal: bool) -> str:
    return "equal" if equal else "differs"
