"""Metrics pages and the split of tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.asking.token_sources import token_sources
from lmcache_tutorial.quantities.records import Snapshot, TokenSources
from lmcache_tutorial.servers.counters import CountersError, parse_snapshot

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
EMPTY = Snapshot(0, 0, 0, 0.0, 0)


@settings(deadline=None)
@given(counts, counts, counts, counts, counts)
def test_a_page_is_read_as_it_was_written(computed, engine, external, requested, hit):
    page = ENGINE.format(
        f"{computed:.1f}", f"{engine:.6e}" if engine < 10**6 else f"{engine}.0", f"{external}.0"
    )
    snapshot = parse_snapshot(page, LMCACHE.format(float(requested), float(hit)))
    assert (snapshot.computed, snapshot.engine, snapshot.external) == (computed, engine, external)
    assert (snapshot.lookup_requested, snapshot.lookup_hit_l1) == (requested, hit + 1)
    assert (snapshot.ttft_sum_s, snapshot.ttft_count, snapshot.stored_chunks) == (1.5, 3, 165)


def test_without_lmcache_its_counters_are_zero():
    assert parse_snapshot(ENGINE.format(1, 2, 3), None).lookup_hit == 0


def test_a_page_of_another_program_is_an_error():
    with pytest.raises(CountersError, match="prompt_tokens_by_source_total is not on"):
        parse_snapshot("# TYPE other counter\nother_total 1.0\n", None)


def test_only_what_lmcache_loaded_counts_not_what_it_found():
    # A hot engine: LMCache finds the whole prompt too, and the engine takes nothing from it.
    after = Snapshot(30, 960, 0, 0.1, 1, lookup_requested=960, lookup_hit_l1=960)
    assert token_sources(EMPTY, after, cached_tokens=960) == TokenSources(30, 960, 0, 0)


def test_the_second_tier_is_told_apart_where_the_engine_held_nothing():
    after = Snapshot(30, 0, 960, 0.1, 1, lookup_requested=960, lookup_hit_l1=320, lookup_hit_l2=640)
    assert token_sources(EMPTY, after, cached_tokens=960) == TokenSources(30, 0, 320, 640)


def test_at_an_exact_multiple_the_last_token_is_computed_all_the_same():
    after = Snapshot(1, 0, 639, 0.1, 1, lookup_requested=640, lookup_hit_l1=640)
    assert token_sources(EMPTY, after, cached_tokens=639).lmcache == 639


@pytest.mark.parametrize(
    ("after", "cached", "reason"),
    [
        (Snapshot(30, 64, 0, 0.1, 1), 96, "disagree on reused"),
        (Snapshot(30, 0, 64, 0.1, 1, lookup_hit_l1=32), 64, "loaded more"),
        (Snapshot(30, 0, 64, 0.1, 1, lookup_hit_l1=640), 64, "external tokens disagree"),
        (Snapshot(-1, 0, 0, 0.1, 1), 0, "went backwards"),
        (Snapshot(30, 64, 64, 0.1, 1, lookup_hit_l2=128), 128, "split by tier"),
    ],
)
def test_a_disagreement_fails_with_every_value(after, cached, reason):
    with pytest.raises(CountersError, match=reason) as error:
        token_sources(EMPTY, after, cached_tokens=cached)
    assert f"usage.cached_tokens {cached}" in str(error.value)
    assert f"external {after.external}" in str(error.value)
