"""A stack's configuration -> the model of its tiers, by which is predicted who will serve what."""

from __future__ import annotations

from ..quantities.blocks import EngineMemory
from ..quantities.memories import GIB, CacheMemory, SecondTier, TierSize, memory_bytes, object_bytes
from ..quantities.tiers import Tiers
from ..settings.topology import CacheConfig, EngineConfig, StackConfig


def empty_tiers(config: StackConfig, kv_bytes_per_token: int) -> Tiers:
    """Make the model of a stack of one engine, one cache and at most one tier, all of them empty.

    Args:
        config: the stack; its engine has a stated number of blocks, or no prefix cache.
        kv_bytes_per_token: of its model in its number format [bytes].

    Raises:
        ValueError: the engine's blocks are not stated, or there is more than one of a kind.
    """
    cache = config.cache
    chunk_bytes = object_bytes(cache.chunk_tokens, kv_bytes_per_token)
    memory = TierSize(memory_bytes(cache.memory_gib), chunk_bytes, policy=cache.eviction)
    return Tiers(
        _engine_memory(config.engine),
        CacheMemory(memory),
        _second_tier(config, cache, cache.chunk_tokens * kv_bytes_per_token),
        chunk_tokens=cache.chunk_tokens,
    )


def _engine_memory(engine: EngineConfig) -> EngineMemory | None:
    if not engine.prefix_cache:
        return None
    if engine.blocks is None or engine.block_tokens is None:
        raise ValueError("what an engine forgets can be predicted only where its number of blocks is stated")
    return EngineMemory(engine.blocks, engine.block_tokens)


def _second_tier(config: StackConfig, cache: CacheConfig, file_bytes: int) -> SecondTier | None:
    if not cache.tiers:
        return None
    (place,) = cache.tiers
    gib = config.tiers[place].capacity_gib
    size = TierSize(None if gib is None else int(gib * GIB), file_bytes)
    return SecondTier(size, retain=cache.retain)
