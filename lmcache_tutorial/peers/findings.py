"""What peers did side by side: a sample, and what follows from many.

Every sample is one request of token ids, so that no tokenizer stands in the way, sent to one engine by a
bare HTTP client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from ..quantities.records import Interval
from ..quantities.statistics import median_interval, ratio_of_medians, ttft_drop
from .catalogue import ALONE, NATIVE, TUNED

Start = Literal["cold", "engine", "outside"]
"""Nothing is cached; the engine's own cache holds the prompt; only what is kept outside it does."""
LOAD_SHARE, LOAD_TOKENS = 0.8, 32_000  # of the copy rate, from this length on


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

    ``copy_bytes_s``: block -> host-to-device copy rate, measured at its end; empty without a GPU.
    """

    all: Sequence[Sample]
    kv_bytes_per_token: int
    copy_bytes_s: Mapping[int, float] = field(default_factory=dict)

    def ttft_s(self, peer: str, tokens: int, start: Start, block: int | None = None) -> list[float]:
        """Return the TTFT of each round [s]; empty where nothing was measured."""
        return [s.ttft_s for s in self._asked(peer, tokens, start) if block in (None, s.block)]

    def _asked(self, peer: str, tokens: int, start: Start) -> list[Sample]:
        return [s for s in self.all if (s.peer, s.tokens, s.start) == (peer, tokens, start)]

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
            about = {name: row[name] for name in ("peer", "tokens", "outside_computed")}
            yield {**about, "same_block": same_block, **changes}

    def _row(self, peer: str, tokens: int, block: int) -> dict[str, Any]:
        cold, own = (self.ttft_s(peer, tokens, start, block) for start in ("cold", "engine"))
        outside = self.ttft_s(peer, tokens, "outside", block)
        row: dict[str, Any] = {"peer": peer, "block": block, "tokens": tokens}
        row |= {"cold": median_interval(cold), "engine": median_interval(own), "outside": None}
        row |= {"drop": None, "load_s": None, "load_bytes_s": None, "load_share": None}
        asked = {
            "engine": self._asked(peer, tokens, "engine"),
            "outside": self._asked(peer, tokens, "outside"),
        }
        for start, found in asked.items():  # prompt tokens that no cache gave
            row[f"{start}_computed"] = round(median(s.computed for s in found)) if found else None
        if outside:
            served = median(s.outside for s in asked["outside"])
            load_s = median(outside) - median(own)
            rate = served * self.kv_bytes_per_token / load_s if load_s > 0 else None
            copy = self.copy_bytes_s.get(block)
            row |= {
                "outside": median_interval(outside),
                "drop": ttft_drop(cold, outside),
                "load_s": load_s,
                "load_bytes_s": rate,
                "load_share": rate / copy if rate and copy else None,
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
