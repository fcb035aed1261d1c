"""Kinds of machines: how their servers start, and how much work a lesson asks of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_MODEL = "smollm2"


@dataclass(frozen=True)
class LessonSizes:
    """How much work a lesson asks of this machine: documents in tokens, timed rounds, answer tokens."""

    short: int
    medium: int
    long: int
    rounds: int = 7
    answer_tokens: int = 8

    def tokens(self, size: str) -> int:
        """Return the tokens of a document called ``short``, ``medium`` or ``long``."""
        return {"short": self.short, "medium": self.medium, "long": self.long}[size]


@dataclass(frozen=True)
class StackConfig:
    """Everything that decides how the servers start; two equal configurations may share a stack.

    ``block_tokens`` is vLLM's KV block (``None``: the engine's default), ``chunk_tokens`` LMCache's chunk.
    LMCache's default time-outs (300 s a message, 10 s a heartbeat) let a dead cache server hang a request
    for minutes and then bring the engine down; with 5 s and 2 s one request waits and the rest go on
    without the cache. ``dtype`` and sizes follow the profile.
    """

    profile: str
    model: str = DEFAULT_MODEL
    block_tokens: int | None = 32
    chunk_tokens: int = 64
    engine_memory_gib: float = 1.0
    lmcache_memory_gib: float = 2.0
    context_tokens: int = 8192
    dtype: str = "bfloat16"
    parallel_requests: int = 4
    lmcache_timeout_s: float = 5.0
    lmcache_heartbeat_s: float = 2.0
    ready_timeout_s: float = 300.0
    environment: tuple[tuple[str, str], ...] = ()
    engine_arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """A kind of machine: its stack and the size of its lessons."""

    stack: StackConfig
    sizes: LessonSizes


PROFILES: Mapping[str, Profile] = {
    "cpu": Profile(
        StackConfig(
            profile="cpu",
            environment=(
                ("OMP_NUM_THREADS", str(min(os.cpu_count() or 1, 16))),
                ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
                # Log-probabilities would compile C++ at the first request: 15 s, and a compiler to install.
                ("TORCHDYNAMO_DISABLE", "1"),
            ),
            engine_arguments=("--enforce-eager",),
        ),
        LessonSizes(short=500, medium=1500, long=4000),
    ),
    # Started only where CUDA works; its settings and sizes are tuned together with the GPU lessons.
    "gpu": Profile(
        StackConfig(
            profile="gpu", block_tokens=None, chunk_tokens=256, engine_memory_gib=0.0,
            lmcache_memory_gib=40.0, context_tokens=65_536,
        ),
        LessonSizes(short=8_000, medium=32_000, long=60_000),
    ),
}  # fmt: skip
