"""The servers' /metrics pages: text -> Snapshot."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from ..quantities.records import Snapshot

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
