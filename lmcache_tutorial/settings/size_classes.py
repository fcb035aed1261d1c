"""Which sizes of documents a chunk leaves."""

from __future__ import annotations

from dataclasses import replace

from .profiles import SizeClass

CONTEXT_SHARE = 0.6  # of the context, for a long document: a conversation about it has room behind it
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
    if fitting or long > context_tokens * CONTEXT_SHARE:
        return fitting or classes[-1:]
    sizes = replace(classes[-1].sizes, short=long // 4, medium=long // 2, long=long)
    return (SizeClass(0, sizes),)


def classes_within(
    classes: tuple[SizeClass, ...], unit_tokens: int, context_tokens: int
) -> tuple[SizeClass, ...]:
    """Leave the sizes that the context of a deployment has room for, with 16 units of reuse or more.

    Args:
        classes: from the slowest to the fastest machines.
        unit_tokens: the larger of the engine's block and LMCache's chunk [tokens].
        context_tokens: the longest prompt with its answer [tokens].

    Returns:
        At least one class; none where the context has no room for 16 units.

    >>> from lmcache_tutorial.settings.profiles import DEPLOYMENT_CLASSES
    >>> [one.sizes.long for one in classes_within(DEPLOYMENT_CLASSES, 64, 4096)]
    [1200, 1800]
    >>> classes_within(DEPLOYMENT_CLASSES, 256, 4096)
    ()
    """
    room = context_tokens * CONTEXT_SHARE
    within = tuple(one for one in classes if one.sizes.long <= room)
    found = classes_for(within or classes[:1], unit_tokens, context_tokens)
    return tuple(one for one in found if FEWEST_CHUNKS * unit_tokens <= one.sizes.long <= room)
