"""The servers' /metrics pages: text -> Snapshot, and the difference of two Snapshots -> TokenSources."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from .records import Snapshot, TokenSources

LOOKED_UP = "lmcache_mp_lookup_requested_tokens_total"
STORED = "lmcache_mp_l1_write_chunks_total"


class CountersError(RuntimeError):
    """A counter is missing, or the meters disagree; the message holds every value that was seen."""


Samples = list[tuple[str, dict[str, str], float]]


def _samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def _total(samples: Samples, name: str, source: str | None = None) -> float:
    found = [v for sample, labels, v in samples if sample == name and source in (None, labels.get("source"))]
    return sum(found)


def parse_snapshot(engine_text: str, lmcache_text: str | None) -> Snapshot:
    """Read the pages of one engine and, if there is one, of its LMCache server.

    Args:
        engine_text: vLLM's ``/metrics`` page, Prometheus text format (vLLM 0.26 and 0.32).
        lmcache_text: LMCache's page (multi-process server, 0.5.3 to 0.5.6); ``None`` without LMCache.
            0.5.3 counts hits of all tiers together: they are taken as the memory's.

    Returns:
        The counters, summed over every label but the source.

    Raises:
        CountersError: the engine's page has no prompt-token counter: another version or another program.
    """
    source = "vllm:prompt_tokens_by_source_total"
    engine, lmcache = _samples(engine_text), _samples(lmcache_text or "")
    if not any(name == source for name, _, _ in engine):
        raise CountersError(
            f"{source} is not on the engine's /metrics page; this suite needs vLLM 0.26 or later."
        )
    names = {name for name, _, _ in lmcache}
    hits = "lmcache_mp_lookup_hit_l1_tokens_total"
    if not any(name == hits for name, _, _ in lmcache):
        hits = "lmcache_mp_lookup_hit_tokens_total"
    return Snapshot(
        computed=int(_total(engine, source, "local_compute")),
        engine=int(_total(engine, source, "local_cache_hit")),
        external=int(_total(engine, source, "external_kv_transfer")),
        ttft_sum_s=_total(engine, "vllm:time_to_first_token_seconds_sum"),
        ttft_count=int(_total(engine, "vllm:time_to_first_token_seconds_count")),
        lookup_requested=int(_total(lmcache, LOOKED_UP)),
        lookup_hit_l1=int(_total(lmcache, hits)),
        lookup_hit_l2=int(_total(lmcache, "lmcache_mp_lookup_hit_l2_tokens_total")),
        stored_chunks=int(_total(lmcache, STORED)),
        absent=()
        if lmcache_text is None
        else tuple(name for name in (LOOKED_UP, STORED) if name not in names),
    )


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

    >>> a = Snapshot(0, 0, 0, 0.0, 0)
    >>> b = Snapshot(10, 32, 64, 0.1, 1, lookup_requested=96, lookup_hit_l1=96)
    >>> token_sources(a, b, cached_tokens=96)
    TokenSources(computed=10, engine=32, lmcache_l1=64, lmcache_l2=0)
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
    if hit_l2 and engine:
        raise CountersError(f"a split by tier needs a window where the engine held nothing.\n  seen  {seen}")
    from_l2 = min(external, hit_l2)
    return TokenSources(computed=computed, engine=engine, lmcache_l1=external - from_l2, lmcache_l2=from_l2)
