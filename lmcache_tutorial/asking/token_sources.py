"""Who served the prompt tokens of a window: two snapshots of the counters -> their split."""

from __future__ import annotations

from ..quantities.records import LookedUp, TokenSources
from ..servers.counters import CountersError, Snapshot


def token_sources(before: Snapshot, after: Snapshot, *, cached_tokens: int, calls: int = 1) -> TokenSources:
    """Split the prompt tokens of a window by who served them, and cross-check the three meters.

    The engine says what came through the connector; LMCache says from which tier. LMCache looks up the
    whole prompt, so its hit covers what the engine held itself, and at most one token a call more than the
    engine takes (the last prompt token is always computed).

    Args:
        before: counters at the start of the window.
        after: counters at its end; no call outside the window in between.
        cached_tokens: the clients' own count, ``usage.prompt_tokens_details.cached_tokens``, summed.
        calls: calls in the window.

    Returns:
        The split; its ``prompt`` is the engine's count.

    Raises:
        CountersError: the engine, ``usage`` and LMCache do not tell the same story.

    >>> from lmcache_tutorial.servers.counters import CacheCounters, EngineCounters
    >>> a = Snapshot((EngineCounters(),), (CacheCounters(),))
    >>> b = Snapshot((EngineCounters(10, 32, 64, 0.1, 1),), (CacheCounters(96, lookup_hit_l1=96),))
    >>> token_sources(a, b, cached_tokens=96)
    TokenSources(computed=10, engine=32, lmcache_l1=64, lmcache_l2=0, untold=0)
    """
    computed = after.computed - before.computed
    engine, external = after.engine - before.engine, after.external - before.external
    hit_l1 = after.lookup_hit_l1 - before.lookup_hit_l1
    hit_l2 = after.lookup_hit_l2 - before.lookup_hit_l2
    seen = (
        f"engine counters: computed {computed}, own cache {engine}, external {external}; "
        f"usage.cached_tokens {cached_tokens}; LMCache look-ups hit {hit_l1} (L1) + {hit_l2} (L2); "
        f"calls {calls}"
    )
    if min(computed, engine, external, hit_l1, hit_l2) < 0:
        raise CountersError(
            f"a counter went backwards: a server restarted inside the window.\n  seen  {seen}"
        )
    if engine + external != cached_tokens:
        raise CountersError(f"the engine's counters and usage disagree on reused tokens.\n  seen  {seen}")
    if external > hit_l1 + hit_l2:
        raise CountersError(f"the engine loaded more than LMCache's look-ups found.\n  seen  {seen}")
    if calls == 1 and not external <= max(0, hit_l1 + hit_l2 - engine) <= external + 1:
        raise CountersError(f"LMCache's look-ups and the engine's external tokens disagree.\n  seen  {seen}")
    if hit_l2 and engine and external:
        raise CountersError(f"a split by tier needs a window where the engine held nothing.\n  seen  {seen}")
    from_l2 = min(external, hit_l2)
    return TokenSources(computed=computed, engine=engine, lmcache_l1=external - from_l2, lmcache_l2=from_l2)


def sources_by_look_up(
    prompt: int, cached: int, found: LookedUp | None, *, engine_is_empty: bool = False
) -> TokenSources:
    """Split one request by its answer, and by what LMCache found of it; what follows from neither is untold.

    The engine takes from LMCache only what it lacks itself: it reuses as much as the one of both that has
    more. So where more was reused than LMCache found, the engine held all of it. Where as much was, it may
    have held any part.

    Args:
        prompt: tokens of the prompt.
        cached: those that were not computed, as the answer tells.
        found: what LMCache says; ``None`` where it does not.
        engine_is_empty: the engine's own cache was emptied before.

    >>> sources_by_look_up(1000, 992, LookedUp(960, 960, 0))
    TokenSources(computed=8, engine=992, lmcache_l1=0, lmcache_l2=0, untold=0)
    >>> sources_by_look_up(1000, 960, LookedUp(960, 960, 0)).untold
    960
    >>> sources_by_look_up(1000, 960, LookedUp(960, 320, 640), engine_is_empty=True)
    TokenSources(computed=40, engine=0, lmcache_l1=320, lmcache_l2=640, untold=0)
    """
    computed = prompt - cached
    if engine_is_empty:
        from_l2 = min(cached, found.l2) if found else 0
        return TokenSources(computed, 0, cached - from_l2, from_l2)
    if found and cached > found.hit:
        return TokenSources(computed, cached, 0, 0)
    return TokenSources(computed, 0, 0, 0, untold=cached)
