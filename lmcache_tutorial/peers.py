"""The peers of LMCache side by side: what is compared, what a sample is, and what follows from samples.

Pure: the measuring is in ``side_by_side.py``, the page in ``peers_page.py``. Every sample is one request of
token ids, so that no tokenizer stands in the way, sent to one engine by a bare HTTP client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal

from .config import GPU_ENVIRONMENT, StackConfig
from .metrics import median_interval, ratio_of_medians, ttft_drop
from .records import Interval

Start = Literal["cold", "engine", "outside"]
"""Nothing is cached; the engine's own cache holds the prompt; only what is kept outside it does."""
LOAD_SHARE, LOAD_TOKENS = 0.8, 32_000  # of the copy rate, from this length on


@dataclass(frozen=True)
class Peer:
    """One way to keep KV, as changes of the profile's stack; a tuning step says what was expected of it."""

    name: str
    what: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    prediction: str = ""
    gpu_only: bool = False

    def config(self, plain: StackConfig) -> StackConfig:
        """Apply the changes to a stack's configuration."""
        return replace(plain, **self.changes)


AS_IT_COMES = {
    "chunk_tokens": 256, "lmcache_arguments": (), "engine_arguments": (), "environment": GPU_ENVIRONMENT
}  # fmt: skip
ALONE = Peer(
    "vLLM alone",
    "no KV outlives the engine: its cold prompts are no reuse, its second asks its own prefix cache",
    {"offload": "none"},
)
TUNED = Peer("LMCache, tuned", "the profile's own settings")
NATIVE = Peer(
    "vLLM native offload", "vLLM's own KV offloading to memory", {"offload": "native"}, gpu_only=True
)
COMES = Peer("LMCache as it comes", "LMCache's and vLLM's defaults", AS_IT_COMES, gpu_only=True)
PEERS = (ALONE, TUNED, NATIVE, COMES)


def _tuning(name: str, prediction: str, **changes: Any) -> Peer:
    return Peer(name, name, {**AS_IT_COMES, **changes}, prediction, gpu_only=True)


# Each is one change of LMCache as it comes, with what was expected of it before it was run.
TUNING = (
    Peer(
        "as it comes", "LMCache's and vLLM's defaults", AS_IT_COMES, "the base of this table", gpu_only=True
    ),
    _tuning(
        "memory pinned at once",
        "one pinned allocation instead of pieces of 64 MiB that grow: copies a few per cent faster",
        lmcache_arguments=("--no-l1-use-lazy",),
    ),
    _tuning(
        "look-ups noticed after 1 ms",
        "a look-up's end is noticed up to 4 ms earlier at every length",
        lmcache_arguments=("--periodic-notifier-interval-ms", "1"),
    ),
    _tuning(
        "huge pages",
        "fewer pages to map: storing faster, loading a little",
        environment=(*GPU_ENVIRONMENT, ("THP_MEM_ALLOC_ENABLE", "1")),
    ),
    _tuning(
        "no asynchronous scheduling",
        "the first token does not wait until the next step is scheduled: some ms at every length",
        engine_arguments=("--no-async-scheduling",),
    ),
    _tuning(
        "block hashes by xxhash",
        "3,750 blocks hashed faster: some ms at 60,000 tokens, cold and warm",
        engine_arguments=("--prefix-caching-hash-algo", "xxhash"),
    ),
    _tuning(
        "chunks of 1024 tokens",
        "a quarter of the keys to hash and look up: a few ms at 60,000 tokens; up to 1,023 tokens lost",
        chunk_tokens=1024,
    ),
    _tuning(
        "blocks of 64 tokens",
        "a quarter of the blocks to hash, allocate and copy: some ms at 60,000 tokens",
        block_tokens=64,
    ),
    _tuning(
        "two workers",
        "nothing: one request keeps one worker busy",
        lmcache_arguments=("--max-workers", "2"),
    ),
)


@dataclass(frozen=True)
class PeerSet:
    """Which peers are measured, at which of the profile's lengths, in how many rounds (three or more)."""

    peers: tuple[Peer, ...]
    sizes: tuple[str, ...]
    rounds: int


SETS: Mapping[str, PeerSet] = {
    "peers": PeerSet(PEERS, ("short", "medium", "long"), rounds=5),
    "tuning": PeerSet(TUNING, ("short", "long"), rounds=3),
}


def blocks(peers: Sequence[Peer], seats: int) -> list[list[Peer]]:
    """Divide peers into blocks that run one after the other, each with at most ``seats`` engines at once.

    The first peer sits in every block, for what changes between blocks is no peer's doing: by vLLM alone it
    is told what storing costs, by LMCache as it comes what a tuning step changed. With one seat each runs
    alone.

    >>> [[p.name for p in block] for block in blocks(PEERS, 3)]
    [['vLLM alone', 'LMCache, tuned', 'vLLM native offload'], ['vLLM alone', 'LMCache as it comes']]
    """
    if seats == 1:
        return [[peer] for peer in peers]
    first, *others = peers
    free = seats - 1
    return [[first, *others[at : at + free]] for at in range(0, len(others), free)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: to which peer in which block, its prompt, what the caches held, TTFT, who served it."""

    peer: str
    block: int
    tokens: int
    round: int
    start: Start
    ttft_s: float
    computed: int
    engine: int
    outside: int
    predicted: int


@dataclass(frozen=True)
class Samples:
    """All samples of a run, with what is needed to read them.

    ``copy_bytes_s`` is the host-to-device copy rate measured in the same run; ``None`` without a GPU.
    """

    all: Sequence[Sample]
    kv_bytes_per_token: int
    copy_bytes_s: float | None = None

    def ttft_s(self, peer: str, tokens: int, start: Start, block: int | None = None) -> list[float]:
        """Return the TTFT of each round [s]; empty where nothing was measured."""
        return [
            s.ttft_s
            for s in self.all
            if (s.peer, s.tokens, s.start) == (peer, tokens, start) and block in (None, s.block)
        ]

    def block_of(self, peer: str) -> int:
        """Return the first block that a peer sat in."""
        return next(s.block for s in self.all if s.peer == peer)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield what is shown of each peer at each length; times in seconds, rates in bytes a second."""
        for tokens in sorted({s.tokens for s in self.all}):
            for peer in dict.fromkeys(s.peer for s in self.all):
                yield self._row(peer, tokens, self.block_of(peer))

    def outcomes(self, base: str) -> Iterator[dict[str, Any]]:
        """Yield what each other peer changed against ``base``, at each length [s]; negative is faster.

        ``same_block`` tells whether both sat in one block; what changed between blocks is in it otherwise.
        """
        for row in self.rows():
            if row["peer"] == base or not row["outside"]:
                continue
            same_block = bool(self.ttft_s(base, row["tokens"], "outside", row["block"]))
            other = self._row(base, row["tokens"], row["block"] if same_block else self.block_of(base))
            changes = {f"{arm}_s": row[arm].value - other[arm].value for arm in ("cold", "engine", "outside")}
            changes["load_s"] = row["load_s"] - other["load_s"]
            yield {"peer": row["peer"], "tokens": row["tokens"], "same_block": same_block, **changes}

    def _row(self, peer: str, tokens: int, block: int) -> dict[str, Any]:
        cold, own = (self.ttft_s(peer, tokens, start, block) for start in ("cold", "engine"))
        outside = self.ttft_s(peer, tokens, "outside", block)
        row: dict[str, Any] = {"peer": peer, "block": block, "tokens": tokens}
        row |= {"cold": median_interval(cold), "engine": median_interval(own), "outside": None}
        row |= {"drop": None, "load_s": None, "load_bytes_s": None, "load_share": None}
        if outside:
            served = median(s.outside for s in self.all if (s.peer, s.tokens) == (peer, tokens) and s.outside)
            load_s = median(outside) - median(own)
            rate = served * self.kv_bytes_per_token / load_s if load_s > 0 else None
            row |= {
                "outside": median_interval(outside),
                "drop": ttft_drop(cold, outside),
                "load_s": load_s,
                "load_bytes_s": rate,
                "load_share": rate / self.copy_bytes_s if rate and self.copy_bytes_s else None,
            }
        alone = self.ttft_s(ALONE.name, tokens, "cold", block)
        row["storing_s"] = median(cold) - median(alone) if alone and peer != ALONE.name else None
        return row


def against_native(samples: Samples) -> dict[int, Interval] | None:
    """Compare LMCache, tuned, with native offload, round by round; ``None`` unless one block held both.

    Returns:
        Prompt tokens -> TTFT of LMCache over that of native offload, with its interval.
    """
    seated = {s.peer: s.block for s in samples.all}
    if NATIVE.name not in seated or seated.get(TUNED.name) != seated[NATIVE.name]:
        return None
    lengths = sorted({s.tokens for s in samples.all})
    return {
        tokens: ratio_of_medians(*(samples.ttft_s(p.name, tokens, "outside") for p in (TUNED, NATIVE)))
        for tokens in lengths
    }
