"""The servers' /metrics pages: text -> the counters of one server; all of a stack's -> Snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

BY_SOURCE, TTFT = "vllm:prompt_tokens_by_source_total", "vllm:time_to_first_token_seconds"
LOOKED_UP = "lmcache_mp_lookup_requested_tokens_total"
STORED = "lmcache_mp_l1_write_chunks_total"
HIT_L1, HIT_ALL = "lmcache_mp_lookup_hit_l1_tokens_total", "lmcache_mp_lookup_hit_tokens_total"
HIT_L2 = "lmcache_mp_lookup_hit_l2_tokens_total"
# From LMCache 0.5.7 on those above count look-ups beyond the engine's own hit, and these whole prompts.
PROMPTS, REUSED = "lmcache_mp_lookup_prompt_tokens_total", "lmcache_mp_lookup_request_hit_tokens_total"


class CountersError(RuntimeError):
    """A counter is missing, or the meters disagree; the message holds every value that was seen."""


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """One vLLM engine's counters: prompt tokens by who served them, and its TTFT histogram's sum [s]."""

    computed: int = 0
    engine: int = 0
    external: int = 0
    ttft_sum_s: float = 0.0
    ttft_count: int = 0

    @property
    def prompt(self) -> int:
        """Prompt tokens of all finished requests."""
        return self.computed + self.engine + self.external


@dataclass(frozen=True, slots=True)
class CacheCounters:
    """One LMCache server's counters: tokens looked up and hit [tokens], chunks stored in its memory.

    A look-up counts the whole prompt, also what the engine holds itself: its whole chunks, or with
    ``counts_tails`` (LMCache 0.5.7) all of it. ``missed`` is what was looked up and not found, where it does
    not follow from the others. ``absent`` names counters that are not on its page: it shows one only after it
    has counted something, so at its start all are absent, and 0.
    ``told`` is false where the page has nothing of LMCache's at all: with ``--otlp-endpoint`` LMCache 0.5.6
    sends its counters there, and no page has them.
    """

    lookup_requested: int = 0
    lookup_hit_l1: int = 0
    lookup_hit_l2: int = 0
    stored_chunks: int = 0
    absent: tuple[str, ...] = ()
    told: bool = True
    counts_tails: bool = False
    missed: int | None = None

    @property
    def lookup_missed(self) -> int:
        """Tokens that were looked up and not found, in whole chunks."""
        if self.missed is None:
            return self.lookup_requested - self.lookup_hit_l1 - self.lookup_hit_l2
        return self.missed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counters of every server of a stack at one moment; its properties are sums over servers."""

    engines: tuple[EngineCounters, ...]
    caches: tuple[CacheCounters, ...] = ()

    @property
    def computed(self) -> int:
        """Prompt tokens that engines prefilled."""
        return sum(one.computed for one in self.engines)

    @property
    def engine(self) -> int:
        """Prompt tokens from engines' own prefix caches."""
        return sum(one.engine for one in self.engines)

    @property
    def external(self) -> int:
        """Prompt tokens that came through connectors."""
        return sum(one.external for one in self.engines)

    @property
    def prompt(self) -> int:
        """Prompt tokens of all finished requests."""
        return self.computed + self.engine + self.external

    @property
    def ttft_sum_s(self) -> float:
        """Sum of the engines' own TTFTs [s]."""
        return sum(one.ttft_sum_s for one in self.engines)

    @property
    def ttft_count(self) -> int:
        """Requests that had a first token."""
        return sum(one.ttft_count for one in self.engines)

    @property
    def lookup_requested(self) -> int:
        """Tokens of the prompts that caches were asked about, in whole chunks or with their tails."""
        return sum(one.lookup_requested for one in self.caches)

    @property
    def lookup_missed(self) -> int:
        """Tokens that caches were asked for and did not hold, in whole chunks."""
        return sum(one.lookup_missed for one in self.caches)

    @property
    def counts_tails(self) -> bool:
        """Tell whether what is looked up is counted to the prompt's last token."""
        return any(one.counts_tails for one in self.caches)

    @property
    def lookup_hit_l1(self) -> int:
        """Tokens that look-ups found in caches' memory."""
        return sum(one.lookup_hit_l1 for one in self.caches)

    @property
    def lookup_hit_l2(self) -> int:
        """Tokens that look-ups found in tiers behind the caches."""
        return sum(one.lookup_hit_l2 for one in self.caches)

    @property
    def stored_chunks(self) -> int:
        """Chunks that caches wrote into their memory."""
        return sum(one.stored_chunks for one in self.caches)

    @property
    def absent(self) -> frozenset[str]:
        """Counters that a cache's page does not have."""
        return frozenset(name for one in self.caches for name in one.absent)


Samples = list[tuple[str, dict[str, str], float]]


def engine_counters(text: str) -> EngineCounters:
    """Read vLLM's ``/metrics`` page, Prometheus text format (vLLM 0.26 and 0.32).

    Returns:
        The counters, summed over every label but the source.

    Raises:
        CountersError: the page has no prompt-token counter: another version or another program.
    """
    samples = _samples(text, BY_SOURCE, TTFT)
    if not any(name == BY_SOURCE for name, _, _ in samples):
        raise CountersError(
            f"{BY_SOURCE} is not on the engine's /metrics page; this suite needs vLLM 0.26 or later."
        )
    return EngineCounters(
        computed=int(_total(samples, BY_SOURCE, "local_compute")),
        engine=int(_total(samples, BY_SOURCE, "local_cache_hit")),
        external=int(_total(samples, BY_SOURCE, "external_kv_transfer")),
        ttft_sum_s=_total(samples, f"{TTFT}_sum"),
        ttft_count=int(_total(samples, f"{TTFT}_count")),
    )


def cache_counters(text: str) -> CacheCounters:
    """Read the ``/metrics`` page of LMCache's multi-process server (0.5.3 to 0.5.7rc2).

    0.5.3 counts hits of all tiers together: they are taken as the memory's. 0.5.7 looks up only what lies
    beyond the engine's own hit; what that hit covers counts as found in memory, as before.
    """
    samples = _samples(text, "lmcache_")
    names = {name for name, _, _ in samples}
    whole = PROMPTS in names
    in_memory = HIT_L1 if HIT_L1 in names else HIT_ALL
    asked, found, behind = (int(_total(samples, name)) for name in (LOOKED_UP, in_memory, HIT_L2))
    return CacheCounters(
        lookup_requested=int(_total(samples, PROMPTS)) if whole else asked,
        lookup_hit_l1=int(_total(samples, REUSED)) - behind if whole else found,
        lookup_hit_l2=behind,
        stored_chunks=int(_total(samples, STORED)),
        absent=tuple(name for name in (LOOKED_UP, STORED) if name not in names),
        told=bool(samples),
        counts_tails=whole,
        missed=asked - found - behind if whole else None,
    )


def _samples(text: str, *beginnings: str) -> Samples:
    """Parse the samples whose names begin so: an engine's page has a thousand others, and is read often."""
    wanted = "\n".join(line for line in text.splitlines() if line.startswith(beginnings))
    families = text_string_to_metric_families(wanted + "\n")
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def _total(samples: Samples, name: str, source: str | None = None) -> float:
    found = [v for sample, labels, v in samples if sample == name and source in (None, labels.get("source"))]
    return sum(found)
