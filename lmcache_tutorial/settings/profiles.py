"""Kinds of machines: how their servers start, and how much work a lesson asks of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util

from ..machine.checks import usable_cores
from .topology import CacheConfig, EngineConfig, StackConfig

DEFAULT_MODEL = "smollm2"
GPU_MODEL = "shape:llama-3.1-8b"
# FlashInfer compiles its sampler at the first request; greedy answers do not need it.
GPU_ENVIRONMENT = (("VLLM_USE_FLASHINFER_SAMPLER", "0"),)
# A faster tokenizer for vLLM where it is installed: of a long prompt's TTFT from a cache, most is tokenizing.
FAST_TOKENIZER = (("VLLM_USE_FASTOKENS", "1"),) if util.find_spec("fastokens") else ()


@dataclass(frozen=True)
class LessonSizes:
    """How much work a lesson asks of this machine: documents in tokens, timed rounds, answer tokens.

    ``kept`` is a document of which many are kept, in caches and in tiers, and ``moved`` one whose time from a
    tier is measured; where none is stated they are a medium and a long one. ``whole`` are a short, a medium
    and a long length that are whole chunks: there LMCache reuses all that its peers reuse, so that what it
    costs is told apart from what it leaves to compute.
    """

    short: int
    medium: int
    long: int
    rounds: int = 7
    answer_tokens: int = 8
    kept: int | None = None
    moved: int | None = None
    whole: tuple[int, int, int] | None = None

    def tokens(self, size: str) -> int:
        """Return the tokens of a document called ``short``, ``medium``, ``long``, ``kept`` or ``moved``."""
        kept = self.medium if self.kept is None else self.kept
        moved = self.long if self.moved is None else self.moved
        sizes = {"short": self.short, "medium": self.medium, "long": self.long, "kept": kept, "moved": moved}
        return sizes[size]

    @property
    def longest(self) -> int:
        """The longest document that is asked for [tokens]."""
        return max(self.short, self.medium, self.long, *(self.whole or ()))


@dataclass(frozen=True)
class SizeClass:
    """Lesson sizes for machines that prefill at a rate of ``from_tokens_s`` or more [tokens/s]."""

    from_tokens_s: float
    sizes: LessonSizes


@dataclass(frozen=True)
class Profile:
    """A kind of machine: its stack, its lessons' sizes, and how many engines fit side by side.

    ``classes`` go from the slowest to the fastest machines. ``warm_up_tokens`` is the length of the call
    that an engine's start is followed by, and whose time decides which class this machine is in.
    """

    stack: StackConfig
    classes: tuple[SizeClass, ...]
    warm_up_tokens: int
    side_by_side: int


def _size_class(from_tokens_s: float, long: int) -> SizeClass:
    sizes = LessonSizes(short=long // 4, medium=long // 2, long=long, answer_tokens=4)
    return SizeClass(from_tokens_s, sizes)


PROFILES: Mapping[str, Profile] = {
    "cpu": Profile(
        StackConfig(
            profile="cpu",
            model=DEFAULT_MODEL,
            environment=(
                ("OMP_NUM_THREADS", str(min(usable_cores(), 16))),
                ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
                # Threads that spin while they wait fight the engine's own spinning for two cores: every
                # third warm request took 100 ms more.
                ("OMP_WAIT_POLICY", "passive"),
                # The model runs in the engine's own process, as on one GPU. vLLM keeps a process for it on
                # processors because threads are bound there; here they are not (above). Two processes that
                # spin for each other cost a fifth of the prefill, and 9 s of imports at each start.
                ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
                # Memory of activations is kept instead of given back to the kernel after each step and
                # faulted in again at the next: another fifth. 32 MiB is the most that glibc takes.
                ("MALLOC_MMAP_THRESHOLD_", str(32 * 2**20)),
                ("MALLOC_TRIM_THRESHOLD_", str(4 * 2**30)),
                # Log-probabilities would compile C++ at the first request: 15 s, and a compiler to install.
                ("TORCHDYNAMO_DISABLE", "1"),
            ),
            engines=(EngineConfig(arguments=("--enforce-eager",)),),
        ),
        # A cold long prompt takes one and a half to four seconds. Rates are those of a prompt of 512 tokens;
        # one of 3,600 takes up to a third longer than they say, since attention grows with the prompt.
        classes=(
            _size_class(0, long=600),
            _size_class(300, long=1200),
            _size_class(800, long=1800),
            _size_class(1200, long=3600),
        ),
        warm_up_tokens=512,
        side_by_side=1,  # an idle engine's worker spins for seconds after a request: it would take a core
    ),
    "gpu": Profile(
        StackConfig(
            profile="gpu",
            model=GPU_MODEL,
            ready_timeout_s=480.0,
            # Huge pages for torch's memory on the host.
            environment=(*GPU_ENVIRONMENT, *FAST_TOKENIZER, ("THP_MEM_ALLOC_ENABLE", "1")),
            engines=(
                EngineConfig(
                    block_tokens=64,
                    memory_gib=None,
                    context_tokens=73_728,  # lesson 5: a long document, and a short one pasted
                    # The engine's own default: a small limit would also keep CUDA graphs to a few tokens, and
                    # the tokens that are prefilled after a hit would run outside them.
                    parallel_requests=None,
                    # What made the first token faster: the tuning table of reports/reference. The hash is not
                    # meant to resist an attacker: one user, one machine.
                    arguments=(
                        "--no-async-scheduling",
                        "--prefix-caching-hash-algo",
                        "xxhash",
                        "-cc.cudagraph_mode=FULL",
                    ),
                ),
            ),
            caches=(
                CacheConfig(
                    chunk_tokens=256,
                    memory_gib=0.0,  # from the machine: run.py
                    transfer="lmcache_driven",
                    arguments=("--periodic-notifier-interval-ms", "1"),
                ),
            ),
        ),
        classes=(
            SizeClass(
                0,
                LessonSizes(8_000, 32_000, 60_000, kept=8_000, moved=16_000, whole=(8_192, 32_768, 60_160)),
            ),
        ),
        warm_up_tokens=8_000,
        side_by_side=3,
    ),
}

# A deployment may be of any speed: again a cold long prompt takes some seconds.
DEPLOYMENT_CLASSES = (
    *PROFILES["cpu"].classes,
    _size_class(4_000, long=9_600),
    _size_class(10_000, long=24_000),
    _size_class(25_000, long=60_000),
)
