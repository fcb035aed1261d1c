"""What a stack is made of: engines, caches, tiers behind the caches, and perhaps a router in front.

Each entry names its ``program``, the module of ``servers/`` that starts it. A further engine, a tier or a
router is a further entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

Transfer = Literal["auto", "lmcache_driven", "engine_driven"]
Eviction = Literal["LRU", "ARC", "IsolatedLRU", "noop"]
FailedLoad = Literal["recompute", "fail"]
Policy = Literal["round_robin", "random", "power_of_two", "consistent_hash", "cache_aware", "kv_aware"]
Variables = tuple[tuple[str, str], ...]
TOGETHER_GIB = 24.0  # KV of all engines on one GPU together, where there are several [GiB]


@dataclass(frozen=True)
class EngineConfig:
    """How one engine starts.

    ``block_tokens`` is its KV block (``None``: the engine's default). ``memory_gib`` is its KV cache;
    ``None`` is what ``gpu_memory_share`` of a GPU leaves beside the weights. ``cache`` is the place, among
    the stack's caches, of the one that its connector goes to; ``None`` is an engine without a connector.
    ``offload_gib`` is what vLLM keeps in memory by itself, outside its KV cache. ``blocks`` is the number of
    its KV blocks, whatever ``memory_gib`` has room for (one of them is the engine's own and holds nothing).
    ``tensor_parallel`` is over how many GPUs it is spread, each of which holds a part of every layer and of
    every token's KV; ``memory_gib`` is that of all of them together.
    ``gpus`` are the places, among the GPUs that this process may use, of those that it runs on; with none
    given it takes the first ones.
    ``prefix_cache=False`` is an engine that keeps nothing for later requests. ``kv_events`` lets it publish
    which blocks it stores and removes.
    """

    program: str = "vllm"
    block_tokens: int | None = 32
    memory_gib: float | None = 1.0
    gpu_memory_share: float = 0.9
    context_tokens: int = 8192
    parallel_requests: int | None = 4
    cache: int | None = 0
    offload_gib: float | None = None
    blocks: int | None = None
    prefix_cache: bool = True
    kv_events: bool = False
    tensor_parallel: int = 1
    gpus: tuple[int, ...] = ()
    arguments: tuple[str, ...] = ()

    def one_of(self, engines: int) -> EngineConfig:
        """Divide its memory, and its share of a GPU, among so many engines like it.

        Engines that start at the same time must not each measure what the other leaves of a GPU, so there the
        size of the KV cache is stated.

        Args:
            engines: how many there are, 1 or more.

        >>> [EngineConfig(memory_gib=gib).one_of(2).memory_gib for gib in (1.0, None)]
        [0.5, 12.0]
        >>> EngineConfig(memory_gib=None, tensor_parallel=2).one_of(2).memory_gib
        24.0
        """
        memory_gib = (self.memory_gib or TOGETHER_GIB * self.tensor_parallel) / engines
        return replace(self, memory_gib=memory_gib, gpu_memory_share=self.gpu_memory_share / engines)


@dataclass(frozen=True)
class CacheConfig:
    """How one cache server starts, and how an engine's connector talks to it.

    ``transfer`` is who copies KV, LMCache's server or the engine; ``auto`` is what LMCache chooses for the
    device. LMCache's default time-outs (300 s a message, 10 s a heartbeat) let a dead cache server hang a
    request for minutes and then bring the engine down; with 5 s and 2 s one request waits and the rest go on
    without the cache.

    ``tiers`` are the places, among the stack's tiers, of those that it writes to and reads from, in this
    order. What comes back from a tier stays in memory under ``retain``, and else is given up after it was
    read. ``eviction`` is LMCache's policy for its memory. ``failed_load`` is what an engine does when KV that
    was found does not come: prefill it, or end the request with an error, which is vLLM's default. Without
    ``shared_memory`` an engine that copies itself sends KV through a socket: slower, but an engine of LMCache
    0.5.6 that stores into shared memory dies with the cache server (reports/findings).
    """

    program: str = "lmcache"
    chunk_tokens: int = 64
    memory_gib: float = 2.0
    transfer: Transfer = "auto"
    timeout_s: float = 5.0
    heartbeat_s: float = 2.0
    eviction: Eviction = "LRU"
    tiers: tuple[int, ...] = ()
    retain: bool = False
    failed_load: FailedLoad = "recompute"
    shared_memory: bool = True
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class TierConfig:
    """How one tier behind the caches starts.

    ``capacity_gib`` bounds what it keeps; ``None`` is no bound, and then ``planned_gib`` is what is meant to
    be written to it: before it starts, the machine must have as much. ``adapter`` holds more of what LMCache
    is told about it, as names and values of its ``--l2-adapter``; ``around`` is an adapter of LMCache's that
    wraps it, such as ``fault_inject``.
    """

    program: str
    capacity_gib: float | None = None
    planned_gib: float = 0.0
    adapter: tuple[tuple[str, Any], ...] = ()
    around: tuple[tuple[str, Any], ...] = ()
    arguments: tuple[str, ...] = ()

    def told(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Build what LMCache is told about it, from what its program has to say.

        >>> TierConfig("file_tier", around=(("type", "fault_inject"),)).told({"type": "fs"})
        {'type': 'fault_inject', 'inner': {'type': 'fs'}}
        """
        inner = {**own, **dict(self.adapter)}
        return {**dict(self.around), "inner": inner} if self.around else inner


@dataclass(frozen=True)
class RouterConfig:
    """How the router in front of the engines starts, and by which policy it chooses one.

    ``round_robin`` takes one after the other, ``power_of_two`` the less loaded of two, ``consistent_hash``
    one for each value of the header X-Session-ID (or each prompt, where there is none), ``cache_aware`` the
    one that was sent the most similar text, ``kv_aware`` the one that says it holds the most of the prompt.
    """

    program: str
    policy: Policy = "round_robin"
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the policy: a router would name a wrong one only in its log."""
        if self.policy not in get_args(Policy):
            raise ValueError(f"a router's policy is {self.policy!r}, and not one of {get_args(Policy)}")


ServerConfig = EngineConfig | CacheConfig | TierConfig | RouterConfig


@dataclass(frozen=True)
class StackConfig:
    """Everything that decides how the servers start; two equal configurations may share a stack.

    ``environment`` holds variables that all of its servers get. All caches have chunks of one size, for a
    window's look-ups are counted over all of them. ``gpus`` is how many GPUs there are for its engines, 0 on
    a processor.
    """

    profile: str
    model: str
    dtype: str = "bfloat16"
    engines: tuple[EngineConfig, ...] = (EngineConfig(),)
    caches: tuple[CacheConfig, ...] = (CacheConfig(),)
    tiers: tuple[TierConfig, ...] = ()
    router: RouterConfig | None = None
    environment: Variables = field(default=())
    ready_timeout_s: float = 300.0
    gpus: int = 0

    def __post_init__(self) -> None:
        """Check what the waiting for counters relies on, and that what an entry names is there."""
        if len({cache.chunk_tokens for cache in self.caches}) > 1:
            raise ValueError("all caches of a stack must have chunks of one size")
        if len({engine.tensor_parallel for engine in self.engines}) > 1:
            raise ValueError("all engines of a stack must be spread over as many GPUs: they share KV")
        for cache in self.caches:
            if not all(0 <= place < len(self.tiers) for place in cache.tiers):
                raise ValueError(f"a cache names tiers {cache.tiers}, and the stack has {len(self.tiers)}")
        for engine in self.engines:
            if engine.cache is not None and not 0 <= engine.cache < len(self.caches):
                raise ValueError(f"an engine names cache {engine.cache} of {len(self.caches)}")

    @property
    def engine(self) -> EngineConfig:
        """The only engine of a stack that has exactly one."""
        (only,) = self.engines
        return only

    @property
    def cache(self) -> CacheConfig:
        """The only cache of a stack that has exactly one."""
        (only,) = self.caches
        return only

    @property
    def tensor_parallel(self) -> int:
        """Over how many GPUs each engine is spread; all engines of a stack are over as many."""
        return self.engines[0].tensor_parallel

    def side_by_side(self, engines: int) -> tuple[EngineConfig, ...]:
        """Put engines like its only one beside each other: on GPUs of their own, as far as there are enough.

        Those that have to share the memory of one GPU, or of a machine without any, divide it.

        Args:
            engines: how many there are to be, 1 or more.

        >>> stack = StackConfig("gpu", "m", engines=(EngineConfig(memory_gib=None),))
        >>> for gpus in (1, 2, 3):
        ...     both = replace(stack, gpus=gpus).side_by_side(2)
        ...     print([(one.gpus, one.memory_gib, one.gpu_memory_share) for one in both])
        [((), 12.0, 0.45), ((), 12.0, 0.45)]
        [((0,), None, 0.9), ((1,), None, 0.9)]
        [((0,), None, 0.9), ((1,), None, 0.9)]
        """
        each = self.tensor_parallel
        apart = self.gpus // each  # so many can be on GPUs of their own
        if apart < 2:
            return (self.engine.one_of(engines),) * engines
        one = self.engine if engines <= apart else self.engine.one_of(-(-engines // apart))
        first = [number % apart * each for number in range(engines)]
        return tuple(replace(one, gpus=tuple(range(place, place + each))) for place in first)

    def with_engines(self, **changes: Any) -> StackConfig:
        """Change every engine."""
        return replace(self, engines=tuple(replace(one, **changes) for one in self.engines))

    def with_caches(self, **changes: Any) -> StackConfig:
        """Change every cache, if there is any."""
        return replace(self, caches=tuple(replace(one, **changes) for one in self.caches))

    def without_caches(self) -> StackConfig:
        """Let the engines run alone."""
        return replace(self.with_engines(cache=None), caches=(), tiers=())
