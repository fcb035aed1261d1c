"""Which sizes of documents a chunk leaves."""

from __future__ import annotations

from dataclasses import replace

from .profiles import SizeClass

FEWEST_CHUNKS = 16  # of a long document: with fewer, rounding alone could take a hit rate below the bar


def classes_for(
    classes: tuple[SizeClass, ...], chunk_tokens: int, context_tokens: int
) -> tuple[SizeClass, ...]:
    """Leave out the sizes whose long document has fewer than 16 chunks.

    Where none has as many, the largest is made longer, as far as the context leaves room for it.

    Args:
        classes: from the slowest to the fastest machines.
        chunk_tokens: LMCache's chunk [tokens].
        context_tokens: the longest prompt that the engine takes [tokens].
    """
    fitting = tuple(one for one in classes if one.sizes.long >= FEWEST_CHUNKS * chunk_tokens)
    long = (FEWEST_CHUNKS + 1) * chunk_tokens
    if fitting or long > context_tokens * 0.6:
        return fitting or classes[-1:]
    sizes = replace(classes[-1].sizes, short=long // 4, medium=long // 2, long=long)
    return (SizeClass(0, sizes),)
