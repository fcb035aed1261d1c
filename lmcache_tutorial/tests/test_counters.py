"""Metrics pages and the split of tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.asking.token_sources import token_sources
from lmcache_tutorial.quantities.records import TokenSources
from lmcache_tutorial.servers.counters import (
    CacheCounters,
    CountersError,
    EngineCounters,
    Snapshot,
    cache_counters,
    engine_counters,
)
from lmcache_tutorial.tests.snapshots import snapshot

ENGINE = """# HELP vllm:prompt_tokens_by_source Number of prompt tokens by source.
# TYPE vllm:prompt_tokens_by_source counter
vllm:prompt_tokens_by_source_total{{engine="0",model_name="m",source="local_compute"}} {0}
vllm:prompt_tokens_by_source_total{{engine="0",model_name="m",source="local_cache_hit"}} {1}
vllm:prompt_tokens_by_source_total{{engine="0",model_name="m",source="external_kv_transfer"}} {2}
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{{engine="0",le="+Inf",model_name="m"}} 3.0
vllm:time_to_first_token_seconds_count{{engine="0",model_name="m"}} 3.0
vllm:time_to_first_token_seconds_sum{{engine="0",model_name="m"}} 1.5
"""
LMCACHE = """# TYPE lmcache_mp_lookup_requested_tokens_total counter
lmcache_mp_lookup_requested_tokens_total{{cache_salt="",model_name="/a \\"quoted\\" path"}} {0}
# TYPE lmcache_mp_lookup_hit_l1_tokens_total counter
lmcache_mp_lookup_hit_l1_tokens_total{{cache_salt="",model_name="m"}} {1}
lmcache_mp_lookup_hit_l1_tokens_total{{cache_salt="other",model_name="m"}} 1.0
# TYPE lmcache_mp_l1_write_chunks_total counter
lmcache_mp_l1_write_chunks_total{{l1_tag="_default"}} 165.0
"""
counts = st.integers(0, 10**9)
EMPTY = snapshot()


def after_one(computed, engine, external, **cache):
    return snapshot(
        computed=computed, engine=engine, external=external, ttft_sum_s=0.1, ttft_count=1, **cache
    )


@settings(deadline=None)
@given(counts, counts, counts, counts, counts)
def test_a_page_is_read_as_it_was_written(computed, engine, external, requested, hit):
    page = ENGINE.format(
        f"{computed:.1f}", f"{engine:.6e}" if engine < 10**6 else f"{engine}.0", f"{external}.0"
    )
    one, other = engine_counters(page), cache_counters(LMCACHE.format(float(requested), float(hit)))
    assert (one.computed, one.engine, one.external) == (computed, engine, external)
    assert (one.ttft_sum_s, one.ttft_count) == (1.5, 3)
    assert (other.lookup_requested, other.lookup_hit_l1, other.stored_chunks) == (requested, hit + 1, 165)


def test_lmcache_0_5_3_counts_the_hits_of_all_tiers_together():
    page = "# TYPE lmcache_mp_lookup_hit_tokens_total counter\nlmcache_mp_lookup_hit_tokens_total 512.0\n"
    assert cache_counters(page).lookup_hit_l1 == 512


def page_of_0_5_7(**tokens):
    lines = (f"# TYPE lmcache_mp_lookup_{name}_tokens_total counter\n" for name in tokens)
    values = (f"lmcache_mp_lookup_{name}_tokens_total {value}.0\n" for name, value in tokens.items())
    return "".join(map("".join, zip(lines, values, strict=True)))


@pytest.mark.parametrize(
    ("engine", "asked", "from_memory", "from_tier", "missed"),
    [
        pytest.param(1216, 0, 0, 0, 0, id="the engine holds all"),
        pytest.param(640, 576, 384, 0, 192, id="LMCache adds some"),
        pytest.param(0, 1216, 1216, 0, 0, id="LMCache holds all"),
        pytest.param(0, 1216, 640, 384, 192, id="memory and a tier"),
        pytest.param(0, 1216, 0, 0, 1216, id="nobody holds any"),
    ],
)
def test_lmcache_0_5_7_counts_what_lies_beyond_the_engines_hit(engine, asked, from_memory, from_tier, missed):
    loaded, prompt = from_memory + from_tier, 1245
    page = page_of_0_5_7(
        requested=asked, hit_l1=from_memory, hit_l2=from_tier, prompt=prompt, request_hit=engine + loaded
    )
    counted = cache_counters(page)
    assert (counted.lookup_requested, counted.counts_tails, counted.lookup_missed) == (prompt, True, missed)
    after = Snapshot((EngineCounters(prompt - engine - loaded, engine, loaded, 0.1, 1),), (counted,))
    found = token_sources(
        Snapshot((EngineCounters(),), (CacheCounters(),)), after, cached_tokens=engine + loaded
    )
    assert (found.engine, found.lmcache_l1, found.lmcache_l2) == (engine, from_memory, from_tier)


def test_a_snapshot_sums_over_servers_and_keeps_each():
    one, two = engine_counters(ENGINE.format(1, 2, 3)), engine_counters(ENGINE.format(10, 20, 30))
    caches = tuple(cache_counters(LMCACHE.format(64.0, float(hit))) for hit in (32, 64))
    both = Snapshot((one, two), caches)
    assert (both.computed, both.engine, both.external, both.prompt) == (11, 22, 33, 66)
    assert (both.ttft_sum_s, both.ttft_count) == (3.0, 6)
    assert (both.lookup_requested, both.lookup_missed, both.stored_chunks) == (128, 30, 330)
    assert Snapshot((one,)).lookup_missed == 0


def test_a_page_of_another_program_is_an_error():
    with pytest.raises(CountersError, match="prompt_tokens_by_source_total is not on"):
        engine_counters("# TYPE other counter\nother_total 1.0\n")


def test_only_what_lmcache_loaded_counts_not_what_it_found():
    # A hot engine: LMCache finds the whole prompt too, and the engine takes nothing from it.
    after = after_one(30, 960, 0, lookup_requested=960, lookup_hit_l1=960)
    assert token_sources(EMPTY, after, cached_tokens=960) == TokenSources(30, 960, 0, 0)


def test_the_second_tier_is_told_apart_where_the_engine_held_nothing():
    after = after_one(30, 0, 960, lookup_requested=960, lookup_hit_l1=320, lookup_hit_l2=640)
    assert token_sources(EMPTY, after, cached_tokens=960) == TokenSources(30, 0, 320, 640)


def test_what_a_tier_holds_too_does_not_matter_where_the_engine_served_all_itself():
    after = after_one(30, 128, 0, lookup_requested=128, lookup_hit_l2=128)
    served = TokenSources(computed=30, engine=128, lmcache_l1=0, lmcache_l2=0)
    assert token_sources(EMPTY, after, cached_tokens=128) == served


def test_at_an_exact_multiple_the_last_token_is_computed_all_the_same():
    after = after_one(1, 0, 639, lookup_requested=640, lookup_hit_l1=640)
    assert token_sources(EMPTY, after, cached_tokens=639).lmcache == 639


@pytest.mark.parametrize(
    ("after", "cached", "reason"),
    [
        (after_one(30, 64, 0), 96, "disagree on reused"),
        (after_one(30, 0, 64, lookup_hit_l1=32), 64, "loaded more"),
        (after_one(30, 0, 64, lookup_hit_l1=640), 64, "external tokens disagree"),
        (after_one(-1, 0, 0), 0, "went backwards"),
        (after_one(30, 64, 64, lookup_hit_l2=128), 128, "split by tier"),
    ],
)
def test_a_disagreement_fails_with_every_value(after, cached, reason):
    with pytest.raises(CountersError, match=reason) as error:
        token_sources(EMPTY, after, cached_tokens=cached)
    assert f"usage.cached_tokens {cached}" in str(error.value)
    assert f"external {after.external}" in str(error.value)
