"""What the model of the tiers promises, against rules that are read off the source one by one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.quantities.blocks import EngineMemory
from lmcache_tutorial.quantities.memories import (
    CacheMemory,
    SecondTier,
    TierSize,
    memory_bytes,
    object_bytes,
)
from lmcache_tutorial.quantities.outcomes import possible
from lmcache_tutorial.quantities.predict import lmcache_reusable_tokens, shared_prefix_tokens
from lmcache_tutorial.quantities.tiers import Tiers, predict

CHUNK = 4
SMALL = settings(deadline=None, max_examples=60)
prompts = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), max_size=8)


def memory(chunks, policy="LRU"):
    return CacheMemory(TierSize(chunks, 1, policy=policy))


def files(chunks=None, **options):
    return SecondTier(TierSize(chunks, 1), **options)


def tiers(chunks, second=None, *, blocks=None, step=1000, policy="LRU"):
    engine = EngineMemory(blocks, 2) if blocks else None
    return Tiers(engine, memory(chunks, policy), second, chunk_tokens=CHUNK, step_tokens=step)


def document(number, chunks, *, rest=1):
    return [number] * (chunks * CHUNK) + [0] * rest


@SMALL
@given(prompts, st.integers(3, 12), st.sampled_from([None, 4, 9]), st.booleans(), st.integers(0, 3))
def test_the_parts_sum_to_the_prompt_and_one_token_is_always_computed(asked, chunks, blocks, second, ticks):
    one = tiers(chunks, files() if second else None, blocks=blocks, step=8)
    for ids, split in zip(asked, predict(one, asked, ticks=ticks), strict=True):
        assert split.prompt == len(ids)
        assert split.computed >= 1
        assert min(split.engine, split.lmcache_l1, split.lmcache_l2) >= 0
        assert second or split.lmcache_l2 == 0


@SMALL
@given(prompts)
def test_a_memory_that_is_large_enough_serves_the_longest_prefix_that_was_asked_before(asked):
    splits = predict(tiers(10_000), asked)
    for place, ids in enumerate(asked):
        shared = max((shared_prefix_tokens(ids, before) for before in asked[:place]), default=0)
        # A last chunk that no earlier prompt filled is stored nowhere.
        stored = max(
            (min(shared_prefix_tokens(ids, b), len(b) // CHUNK * CHUNK) for b in asked[:place]), default=0
        )
        assert splits[place].lmcache_l1 == lmcache_reusable_tokens(stored, len(ids), CHUNK)
        assert stored <= shared


@SMALL
@given(prompts, st.integers(3, 12), st.integers(4, 12))
def test_what_happens_with_given_ticks_is_among_what_is_possible(asked, chunks, step):
    asked = asked[:4]
    outcomes = possible(tiers(chunks, files(), step=step), asked)
    for ticks in (0, 1, None):
        for split, one in zip(
            predict(tiers(chunks, files(), step=step), asked, ticks=ticks), outcomes, strict=True
        ):
            assert split in one.splits
            assert one.lowest.reused <= split.reused <= one.highest.reused


@SMALL
@given(prompts, st.integers(3, 12), st.booleans())
def test_arc_evicts_what_lru_evicts_when_requests_come_one_after_the_other(asked, chunks, second):
    lru, arc = (tiers(chunks, files() if second else None, policy=policy) for policy in ("LRU", "ARC"))
    assert predict(lru, asked) == predict(arc, asked)


@SMALL
@given(prompts, st.integers(1, 12))
def test_no_more_is_held_than_there_is_room_for(asked, chunks):
    one = tiers(chunks, files(8, refuses=True), step=6)
    for ids in asked:
        request = one.begin(ids)
        while request:
            assert one.memory.objects <= chunks
            assert one.second.objects <= 8
            request = one.go_on(request)
        one.tick()


@SMALL
@given(prompts, st.integers(1, 8), st.integers(3, 12))
def test_a_copy_goes_its_own_way(asked, cut, chunks):
    one = tiers(chunks, files(6), blocks=6)
    predict(one, asked[:cut])
    other = one.copy()
    assert predict(one, asked[cut:]) == predict(other, asked[cut:])


def test_a_step_is_stored_whole_or_not_at_all():
    one = tiers(10, step=3 * CHUNK)
    one.serve(document(1, 11))  # steps of 3, 3, 3 and 2 chunks; the last two find room for one
    assert (one.memory.objects, one.memory.dropped) == (9, 2)
    other = tiers(10, step=1000)
    other.serve(document(1, 11))
    assert (other.memory.objects, other.memory.dropped) == (0, 11)


def test_what_is_dropped_reaches_no_second_tier_either():
    one = tiers(10, files())
    one.serve(document(1, 11))
    assert one.second.objects == 0


def test_a_tick_gives_up_a_fifth_of_the_chunks_and_the_tail_of_the_oldest_prompt_first():
    one = tiers(20)
    predict(one, [document(1, 8), document(2, 7)], ticks=0)
    assert one.tick() == 0  # 15 of 20 is under the watermark
    one.serve(document(3, 1))
    assert one.tick() == 3  # int(16 × 0.2)
    assert one.serve(document(1, 8)).lmcache_l1 == 5 * CHUNK


def test_one_missing_early_chunk_loses_all_later_ones():
    one = tiers(100)
    one.serve(document(1, 8))
    first_chunk = one.begin(document(1, 1)).keys
    one.memory._discard(first_chunk)
    assert one.serve(document(1, 8)).reused == 0


@pytest.mark.parametrize(("retain", "again"), [(False, (0, 8)), (True, (8, 0))])
def test_what_comes_back_stays_in_memory_only_with_retain(retain, again):
    one = tiers(100, files(retain=retain))
    one.serve(document(1, 2))
    one.memory.clear()
    splits = predict(one, [document(1, 2)] * 2)
    assert [(split.lmcache_l1, split.lmcache_l2) for split in splits] == [(0, 8), again]


def test_without_room_for_all_that_comes_back_nothing_comes_back():
    one = tiers(10, files())
    one.serve(document(1, 6))
    one.memory.clear()
    one.serve(document(2, 7))
    split = one.serve(document(1, 6))  # room for three chunks of six
    assert (split.reused, one.failed_prefetches) == (0, 6)


def test_the_second_tier_fills_a_gap_and_is_credited_with_all_that_follows_it():
    one = tiers(100, files())
    one.serve(document(1, 5))
    one.memory._discard(one.begin(document(1, 5)).keys[1:2])
    split = one.serve(document(1, 5))
    assert (split.lmcache_l1, split.lmcache_l2) == (CHUNK, 4 * CHUNK)
    assert one.memory.objects == 4


def test_lmcache_supplies_what_the_engine_does_not_hold():
    one = tiers(100, blocks=9)  # eight blocks of two tokens
    assert one.serve(document(1, 3)).computed == 13
    assert one.serve(document(1, 3)).engine == 12
    one.serve(document(2, 1, rest=2))  # three blocks: one was free, the tail of the first prompt goes
    split = one.serve(document(1, 3))
    assert (split.engine, split.lmcache_l1, split.computed) == (10, 2, 1)


def test_a_prompt_that_was_found_whole_is_served_but_for_its_last_token():
    one = tiers(100)
    one.serve(document(1, 3, rest=0))
    assert one.serve(document(1, 3, rest=0)).lmcache_l1 == 3 * CHUNK - 1


def test_a_tier_of_files_with_an_end_forgets_too():
    one = tiers(100, files(10))
    predict(one, [document(1, 4), document(2, 4)])
    assert one.second.objects == 7  # 8 of 10, and int(8 × 0.2) fewer
    one.memory.clear()
    split = one.serve(document(1, 4))
    assert split.lmcache_l2 == 3 * CHUNK


@pytest.mark.parametrize("policy", ["noop", "IsolatedLRU"])
def test_a_policy_that_gives_up_nothing_keeps_the_first_documents(policy):
    one = tiers(10, policy=policy)
    splits = predict(one, [document(number, 4) for number in (1, 2, 3)] * 2)
    assert [split.lmcache_l1 // CHUNK for split in splits] == [0, 0, 0, 4, 4, 0]


def test_prompts_of_different_salts_share_nothing():
    one = tiers(100, blocks=50)
    one.serve(document(1, 3), "a")
    assert one.serve(document(1, 3), "b").reused == 0
    assert one.serve(document(1, 3), "a").reused > 0


def test_what_is_being_read_is_not_given_up():
    one = tiers(10)
    predict(one, [document(1, 4), document(2, 4)], ticks=0)
    request = one.begin(document(1, 4))
    assert one.tick() == 1  # of the second document, though the first was asked before it
    while request:
        request = one.go_on(request)
    assert one.serve(document(1, 4)).lmcache_l1 == 4 * CHUNK


def test_a_band_is_a_point_where_nothing_is_evicted():
    assert all(one.decided for one in possible(tiers(100, files()), [document(n, 4) for n in (1, 2, 1)]))


def test_too_many_possible_states_are_refused():
    with pytest.raises(ValueError, match="more than 5 states"):
        possible(tiers(10, step=4), [document(n % 4, 4) for n in range(8)], limit=5)


def test_sizes_are_those_of_the_command_line():
    assert memory_bytes(0.05) == 53_687_091
    assert object_bytes(64, 23_040) == 64 * 23_040
    assert object_bytes(3, 1000) == 4096
    with pytest.raises(ValueError, match="policy must be one of"):
        TierSize(10, 1, policy="FIFO")
    with pytest.raises(ValueError, match="1 byte or more"):
        TierSize(0, 1)
    with pytest.raises(ValueError, match="2 blocks or more"):
        EngineMemory(1, 2)
