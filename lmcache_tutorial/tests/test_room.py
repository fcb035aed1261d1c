"""The room that prompts take: a plan holds what it says, by the model of what the servers do."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.quantities.blocks import EngineMemory
from lmcache_tutorial.quantities.memories import GIB
from lmcache_tutorial.quantities.room import Room
from lmcache_tutorial.quantities.tiers import predict
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.topology import EngineConfig, TierConfig
from lmcache_tutorial.stack.expected import empty_tiers

ONE = PROFILES["cpu"].stack
KV_BYTES = 23_040
rooms = st.builds(
    Room,
    prompt_tokens=st.integers(64, 2000),
    block_tokens=st.sampled_from([16, 32]),
    chunk_tokens=st.sampled_from([32, 64]),
    kv_bytes_per_token=st.just(KV_BYTES),
)


def prompts(room, count):
    return [[number] * room.prompt_tokens for number in range(count)]


def planned(room, *, engine, memory, **changes):
    """Configure a stack with room for so many prompts in the engine and in LMCache's memory."""
    written = float(f"{room.cache_gib(memory):.9g}")  # as it stands on the command line
    cache = replace(
        ONE.cache,
        chunk_tokens=room.chunk_tokens,
        memory_gib=written,
        **changes,
    )
    one = EngineConfig(block_tokens=room.block_tokens, blocks=room.engine_blocks(engine))
    tiers = (TierConfig("file_tier"), TierConfig("file_tier", capacity_gib=room.tier_gib(memory)))
    return replace(ONE, engines=(one,), caches=(cache,), tiers=tiers)


@given(room=rooms, count=st.integers(1, 6))
def test_an_engine_with_the_planned_blocks_holds_the_prompts(room, count):
    engine = EngineMemory(room.engine_blocks(count), room.block_tokens)
    for ids in prompts(room, count):
        assert engine.ask(ids) == 0
    assert all(engine.ask(ids) > 0 for ids in prompts(room, count)) or room.prompt_tokens <= room.block_tokens


@given(room=rooms, count=st.integers(2, 6))
def test_a_memory_of_the_planned_size_holds_the_prompts_and_evicts_nothing(room, count):
    tiers = empty_tiers(planned(room, engine=1, memory=count), KV_BYTES)
    served = predict(tiers, prompts(room, count) * 2)
    assert tiers.memory.evicted == tiers.memory.dropped == 0
    whole = room.chunks * room.chunk_tokens
    assert all(split.reused >= min(whole, room.prompt_tokens - 1) for split in served[count:])


@given(room=rooms, count=st.integers(1, 9))
def test_a_tier_of_the_planned_size_has_room_for_the_prompts_and_for_no_more(room, count):
    kept = int(room.tier_gib(count) * GIB)
    assert count * room.document_bytes <= kept
    assert kept < count * room.document_bytes + room.chunk_tokens * KV_BYTES


def test_the_model_of_a_stack_is_made_from_its_configuration():
    room = Room(1230, 32, 64, KV_BYTES)
    tiers = empty_tiers(planned(room, engine=2, memory=3, eviction="noop", tiers=(1,), retain=True), KV_BYTES)
    assert tiers.memory.size.policy == "noop"
    assert tiers.second.retain
    assert tiers.second.size.capacity_bytes == int(room.tier_gib(3) * GIB)
    assert (
        empty_tiers(planned(room, engine=2, memory=3, tiers=(0,)), KV_BYTES).second.size.capacity_bytes
        is None
    )
    assert empty_tiers(planned(room, engine=2, memory=3), KV_BYTES).second is None
    assert empty_tiers(ONE.with_engines(prefix_cache=False), KV_BYTES).engine is None
    with pytest.raises(ValueError, match="number of blocks is stated"):
        empty_tiers(ONE, KV_BYTES)
