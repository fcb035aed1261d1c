"""The peers of LMCache: what is compared side by side, as changes of the profile's stack.

The measuring is in ``rounds.py``, what follows from its samples in ``findings.py``, the page in ``page.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from ..settings.profiles import GPU_ENVIRONMENT, LessonSizes
from ..settings.topology import StackConfig, Variables

Change = Callable[[StackConfig], StackConfig]


def as_it_is(plain: StackConfig) -> StackConfig:
    """Change nothing."""
    return plain


def as_it_comes(plain: StackConfig) -> StackConfig:
    """Take the defaults of LMCache and vLLM."""
    defaults = plain.with_engines(block_tokens=None, arguments=()).with_caches(chunk_tokens=256, arguments=())
    return replace(defaults, environment=GPU_ENVIRONMENT)


def native(plain: StackConfig) -> StackConfig:
    """Let vLLM keep by itself what LMCache would keep."""
    return plain.without_caches().with_engines(offload_gib=plain.cache.memory_gib)


@dataclass(frozen=True)
class Peer:
    """One way to keep KV, as changes of the profile's stack; a tuning step says what was expected of it."""

    name: str
    what: str
    change: Change = as_it_is
    prediction: str = ""
    gpu_only: bool = False

    def config(self, plain: StackConfig) -> StackConfig:
        """Apply the changes to a stack's configuration."""
        return self.change(plain)


ALONE = Peer(
    "vLLM alone",
    "no KV outlives the engine: its cold prompts are no reuse, its second asks its own prefix cache",
    StackConfig.without_caches,
)
TUNED = Peer("LMCache, tuned", "the profile's own settings")
NATIVE = Peer("vLLM native offload", "vLLM's own KV offloading to memory", native, gpu_only=True)
COMES = Peer("LMCache as it comes", "LMCache's and vLLM's defaults", as_it_comes, gpu_only=True)
PEERS = (ALONE, TUNED, NATIVE, COMES)


def _tuning(
    name: str,
    prediction: str,
    *,
    engine: Mapping[str, Any] = MappingProxyType({}),
    cache: Mapping[str, Any] = MappingProxyType({}),
    environment: Variables = GPU_ENVIRONMENT,
) -> Peer:
    def change(plain: StackConfig) -> StackConfig:
        changed = as_it_comes(plain).with_engines(**engine).with_caches(**cache)
        return replace(changed, environment=environment)

    return Peer(name, name, change, prediction, gpu_only=True)


# Each is one change of LMCache as it comes, with what was expected of it before it was run.
TUNING = (
    Peer(
        "as it comes", "LMCache's and vLLM's defaults", as_it_comes, "the base of this table", gpu_only=True
    ),
    _tuning(
        "attention inside the CUDA graphs",
        "what follows a hit runs as one graph instead of 33 pieces: some ms at every length, own hits too",
        engine={"arguments": ("-cc.cudagraph_mode=FULL",)},
    ),
    _tuning(
        "blocks of 64 tokens",
        "a quarter of the blocks to hash, allocate and copy: some ms at 60,000 tokens",
        engine={"block_tokens": 64},
    ),
    _tuning(
        "chunks of 1024 tokens",
        "a quarter of the keys to hash and look up: a few ms at 60,000 tokens; up to 1,023 tokens lost",
        cache={"chunk_tokens": 1024},
    ),
    _tuning(
        "chunks of 64 tokens",
        "no gain: up to 63 tokens left to compute instead of 255, for four times the keys, each 14 µs",
        cache={"chunk_tokens": 64},
    ),
    _tuning(
        "two workers",
        "nothing: one request keeps one worker busy",
        cache={"arguments": ("--max-workers", "2")},
    ),
    Peer(
        "the profile's settings",
        "what the profile sets, together",
        prediction="the sum of its steps",
        gpu_only=True,
    ),
    _tuning(
        "the engine copies",
        "slower: its worker copies piece by piece through torch, and runs nothing else meanwhile",
        # Memory that grows is no shared segment, and without one KV is pickled: 4.6 s for 8,000 tokens.
        cache={"transfer": "engine_driven", "arguments": ("--no-l1-use-lazy",)},
    ),
    _tuning(
        "memory pinned at once",
        "one pinned allocation instead of pieces of 64 MiB that grow: copies a few per cent faster",
        cache={"arguments": ("--no-l1-use-lazy",)},
    ),
    _tuning(
        "look-ups noticed after 1 ms",
        "a look-up's end is noticed up to 4 ms earlier at every length",
        cache={"arguments": ("--periodic-notifier-interval-ms", "1")},
    ),
    _tuning(
        "huge pages",
        "fewer pages to map: storing faster, loading a little",
        environment=(*GPU_ENVIRONMENT, ("THP_MEM_ALLOC_ENABLE", "1")),
    ),
    _tuning(
        "no asynchronous scheduling",
        "the first token does not wait until the next step is scheduled: some ms at every length",
        engine={"arguments": ("--no-async-scheduling",)},
    ),
    _tuning(
        "block hashes by xxhash",
        "3,750 blocks hashed faster: some ms at 60,000 tokens, cold and warm",
        engine={"arguments": ("--prefix-caching-hash-algo", "xxhash")},
    ),
)


WHOLE_CHUNKS = ("whole-short", "whole-medium", "whole-long")


@dataclass(frozen=True)
class PeerSet:
    """Which peers are measured, at which of the profile's lengths, in how many rounds (three or more)."""

    peers: tuple[Peer, ...]
    sizes: tuple[str, ...]
    rounds: int
    whole_chunks: bool = False

    def lengths(self, sizes: LessonSizes) -> dict[str, int]:
        """Return the lengths that are asked for, by name [tokens], with those of whole chunks where stated.

        >>> SETS["peers"].lengths(LessonSizes(800, 1_600, 3_200))
        {'short': 800, 'medium': 1600, 'long': 3200}
        >>> SETS["peers"].lengths(LessonSizes(800, 1_600, 3_200, whole=(1_024, 2_048, 4_096)))["whole-medium"]
        2048
        """
        lengths = {size: sizes.tokens(size) for size in self.sizes}
        if self.whole_chunks and sizes.whole:
            lengths |= dict(zip(WHOLE_CHUNKS, sizes.whole, strict=True))
        return lengths


SETS: Mapping[str, PeerSet] = {
    "peers": PeerSet(PEERS, ("short", "medium", "long"), rounds=5, whole_chunks=True),
    "tuning": PeerSet(TUNING, ("short", "long"), rounds=3),
}


def settings_digest(peers: Sequence[Peer], plain: StackConfig, sizes: LessonSizes) -> str:
    """Digest what the peers' servers start with, and the lengths that they are asked for.

    Samples of other settings or lengths must not be mixed with theirs.
    """
    asked = (sizes, [(peer.name, peer.config(plain)) for peer in peers])
    return sha256(repr(asked).encode()).hexdigest()[:16]


def blocks(peers: Sequence[Peer], seats: int, measured: Container[str] = ()) -> list[list[Peer]]:
    """Divide peers into blocks that run one after the other, each with at most ``seats`` engines at once.

    The first peer sits in every block, for what changes between blocks is no peer's doing: by vLLM alone it
    is told what storing costs, by LMCache as it comes what a tuning step changed. With one seat each runs
    alone.

    ``measured`` names the peers that an earlier run measured; the first sits beside the others once more.

    >>> [[p.name for p in block] for block in blocks(PEERS, 3)]
    [['vLLM alone', 'LMCache, tuned', 'vLLM native offload'], ['vLLM alone', 'LMCache as it comes']]
    """
    first, *others = peers
    others = [peer for peer in others if peer.name not in measured]
    if seats == 1:
        return [[peer] for peer in (first, *others) if peer.name not in measured]
    free = seats - 1
    return [[first, *others[at : at + free]] for at in range(0, len(others), free)]
