"""What a stack is made of: engines, caches, tiers behind the caches, and perhaps a router in front.

Each entry names its ``program``, the module of ``servers/`` that starts it. A further engine, a tier or a
router is a further entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Transfer = Literal["auto", "lmcache_driven", "engine_driven"]
Variables = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class EngineConfig:
    """How one engine starts.

    ``block_tokens`` is its KV block (``None``: the engine's default). ``memory_gib`` is its KV cache;
    ``None`` is what ``gpu_memory_share`` of a GPU leaves beside the weights. ``cache`` is the place, among
    the stack's caches, of the one that its connector goes to; ``None`` is an engine without a connector.
    ``offload_gib`` is what vLLM keeps in memory by itself, outside its KV cache.
    """

    program: str = "vllm"
    block_tokens: int | None = 32
    memory_gib: float | None = 1.0
    gpu_memory_share: float = 0.9
    context_tokens: int = 8192
    parallel_requests: int | None = 4
    cache: int | None = 0
    offload_gib: float | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class CacheConfig:
    """How one cache server starts, and how an engine's connector talks to it.

    ``transfer`` is who copies KV, LMCache's server or the engine; ``auto`` is what LMCache chooses for the
    device. LMCache's default time-outs (300 s a message, 10 s a heartbeat) let a dead cache server hang a
    request for minutes and then bring the engine down; with 5 s and 2 s one request waits and the rest go on
    without the cache.
    """

    program: str = "lmcache"
    chunk_tokens: int = 64
    memory_gib: float = 2.0
    transfer: Transfer = "auto"
    timeout_s: float = 5.0
    heartbeat_s: float = 2.0
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class TierConfig:
    """How one tier behind the caches starts."""

    program: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class RouterConfig:
    """How the router in front of the engines starts."""

    program: str
    arguments: tuple[str, ...] = ()


ServerConfig = EngineConfig | CacheConfig | TierConfig | RouterConfig


@dataclass(frozen=True)
class StackConfig:
    """Everything that decides how the servers start; two equal configurations may share a stack.

    ``environment`` holds variables that all of its servers get. All caches have chunks of one size, for a
    window's look-ups are counted over all of them.
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

    def __post_init__(self) -> None:
        """Check what the waiting for counters relies on."""
        if len({cache.chunk_tokens for cache in self.caches}) > 1:
            raise ValueError("all caches of a stack must have chunks of one size")

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

    def with_engines(self, **changes: Any) -> StackConfig:
        """Change every engine."""
        return replace(self, engines=tuple(replace(one, **changes) for one in self.engines))

    def with_caches(self, **changes: Any) -> StackConfig:
        """Change every cache, if there is any."""
        return replace(self, caches=tuple(replace(one, **changes) for one in self.caches))

    def without_caches(self) -> StackConfig:
        """Let the engines run alone."""
        return replace(self.with_engines(cache=None), caches=())
