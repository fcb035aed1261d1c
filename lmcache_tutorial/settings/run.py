"""Options -> a checked configuration of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..machine.checks import (
    LEAST_INSTRUCTION_SET,
    instruction_set_here,
)
from ..machine.cuda import cuda_devices, cuda_works
from .bars import Thresholds, percent
from .environment import machine_memory_gib
from .errors import ConfigError
from .model_option import checked_model
from .number_format import number_format
from .options import LMCACHE_SHARE, RunOptions, check_choices
from .paths import user_path
from .profiles import DEPLOYMENT_CLASSES, PROFILES, SizeClass
from .size_classes import classes_for, classes_within
from .topology import StackConfig

SMALL_CHUNK_TOKENS = 32  # one block, for the smallest documents


@dataclass(frozen=True)
class RunConfig:
    """One run of the suite: its stack, the sizes that its lessons may have, its bars, its report's folder.

    ``dtype_reason`` says why the engine computes in this number format. ``url``: a deployment is asked, the
    first of those that were named; then ``stack`` is never started, and there is no such reason.
    """

    stack: StackConfig
    classes: tuple[SizeClass, ...]
    dtype_reason: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)
    report_dir: Path = Path("reports")
    keep_stack: bool = False
    allow_slow_lmcache: bool = False
    peers: str | None = None
    mask: bool = False
    langfuse: bool = False
    url: str | None = None

    def within(self, context_tokens: int) -> RunConfig | None:
        """Shorten the engines' context to what a model takes, and the documents with it.

        Args:
            context_tokens: the longest prompt with its answer [tokens].

        Returns:
            ``None`` where a document of 16 chunks, and a conversation about it, have no room.
        """
        if context_tokens >= max(engine.context_tokens for engine in self.stack.engines):
            return self
        classes = classes_within(DEPLOYMENT_CLASSES, self.stack.caches[0].chunk_tokens, context_tokens)
        if not classes:
            return None
        return replace(self, stack=self.stack.with_engines(context_tokens=context_tokens), classes=classes)


def run_config(options: RunOptions, has_gpu: Callable[[], bool] | None = None) -> RunConfig:
    """Turn options into a checked configuration.

    Args:
        options: what was asked for; an option that is ``None`` is the profile's.
        has_gpu: tells whether CUDA works; ``None`` asks the driver.

    Raises:
        ConfigError: a value cannot work; nothing was started.
    """
    check_choices(options)
    if options.url:  # nothing is started: what would be does not matter, nor whether there is a GPU for it
        options = replace(options, stack="cpu", dtype="auto", model=None, tensor_parallel=None)
    profile = PROFILES[_profile_name(options.stack, has_gpu or cuda_works)]
    _check_peers(options, profile.stack.profile)
    dtype, reason = number_format(options.dtype, profile.stack.profile)
    reason = "" if options.url else reason
    gpus = cuda_devices() if has_gpu is None and profile.stack.profile == "gpu" else 0
    _check_tensor_parallel(options.tensor_parallel or 1, profile.stack.profile, gpus)
    settings = _settings(options, replace(profile.stack, dtype=dtype, gpus=gpus))
    return RunConfig(
        settings,
        classes_for(profile.classes, settings.cache.chunk_tokens, settings.engine.context_tokens),
        reason,
        bars(options),
        user_path("report_dir", options.report_dir).absolute(),
        options.keep,
        options.allow_slow_lmcache,
        options.peers,
        options.mask,
        options.langfuse,
        next(iter(addresses(options.url)), None),
    )


def addresses(given: str | None) -> list[str]:
    """Split the addresses of several engines; one that is named twice counts once.

    >>> addresses("http://one:8000, http://two:8000"), addresses(None)
    (['http://one:8000', 'http://two:8000'], [])

    Raises:
        ConfigError: some were given, and there is none among them.
    """
    found = list(dict.fromkeys(one.strip() for one in (given or "").split(",") if one.strip()))
    if given is not None and not found:
        raise ConfigError(
            lambda option: f"{option('url')} names no address.\nTo fix: give it one, or leave it out"
        )
    return found


def bars(options: RunOptions) -> Thresholds:
    """Return the bars that options set.

    Raises:
        ConfigError: one is no per cent value.
    """
    return Thresholds(
        min_hit_rate=percent("min_hit_rate", options.min_hit_rate) / 100,
        min_ttft_drop=percent("min_ttft_drop", options.min_ttft_drop) / 100,
    )


def _settings(options: RunOptions, stack: StackConfig) -> StackConfig:
    """Return the profile's stack with what suits this machine, and over that what was asked for."""
    if stack.profile == "gpu":
        stack = stack.with_caches(memory_gib=round(LMCACHE_SHARE * machine_memory_gib()))
    elif instruction_set_here() == LEAST_INSTRUCTION_SET:
        stack = stack.with_caches(chunk_tokens=SMALL_CHUNK_TOKENS)
    engines = {
        "memory_gib": options.engine_memory_gib,
        "gpu_memory_share": options.gpu_memory_share,
        "tensor_parallel": options.tensor_parallel,
    }
    caches = {"chunk_tokens": options.chunk_tokens, "memory_gib": options.lmcache_memory_gib}
    stack = stack.with_engines(**_given(engines)).with_caches(**_given(caches))
    _check_stack(stack)
    return replace(stack, model=checked_model(options.model or stack.model))


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_peers(options: RunOptions, profile: str) -> None:
    if options.peers == "tuning" and profile == "cpu":
        raise ConfigError(
            lambda option: (
                f"{option('peers', 'tuning')} measures settings of a GPU's stack, and this is the CPU's.\n"
                f"To fix: {option('peers')}"
            )
        )
    if options.peers and (options.tensor_parallel or 1) > 1:
        raise ConfigError(
            lambda option: (
                f"{option('peers')} measures peers side by side on one GPU.\n"
                f"To fix: leave {option('tensor_parallel')} out"
            )
        )
    if options.peers and (options.engine_memory_gib is not None or options.lmcache_memory_gib is not None):
        raise ConfigError(
            lambda option: (
                f"{option('peers')} gives every peer as much memory as its longest prompts need, so that "
                f"they can be compared.\n"
                f"To fix: leave {option('engine_memory_gib')} and {option('lmcache_memory_gib')} out"
            )
        )


def _check_tensor_parallel(wanted: int, profile: str, here: int) -> None:
    """Check over how many GPUs an engine is to be spread; ``here`` are so many, or 0: nobody has counted."""
    if wanted == 1:
        return
    if profile == "cpu":
        raise ConfigError(
            lambda option: (
                f"{option('tensor_parallel', wanted)} spreads an engine over GPUs, and this is the CPU's "
                f"stack.\nTo fix: leave it out, or use {option('stack', 'gpu')} on a GPU machine"
            )
        )
    if 0 < here < wanted:
        raise ConfigError(
            lambda option: (
                f"{option('tensor_parallel', wanted)} needs as many GPUs, and the NVIDIA driver reports "
                f"{here} (CUDA_VISIBLE_DEVICES may hide others).\nTo fix: {option('tensor_parallel', here)}"
            )
        )


def _profile_name(stack: str, has_gpu: Callable[[], bool]) -> str:
    if stack == "auto":
        return "gpu" if has_gpu() else "cpu"
    if stack == "gpu" and not has_gpu():
        raise ConfigError(
            lambda option: (
                f"{option('stack', 'gpu')} needs a CUDA device, and the NVIDIA driver reports none.\n"
                f"To fix: run on a GPU machine, or use {option('stack', 'cpu')}."
            )
        )
    return stack


def _check_stack(config: StackConfig) -> None:
    engine, cache = config.engine, config.cache
    if cache.chunk_tokens < 1 or (engine.block_tokens and cache.chunk_tokens % engine.block_tokens):
        block = engine.block_tokens or 1
        nearest = max(block, cache.chunk_tokens // block * block)
        raise ConfigError(
            lambda option: (
                f"{option('chunk_tokens')} is {cache.chunk_tokens}, but an LMCache chunk must be a multiple "
                f"of the engine's block of {block} tokens.\nTo fix: {option('chunk_tokens', nearest)}"
            )
        )
    if engine.memory_gib is not None:
        _check_range("engine_memory_gib", engine.memory_gib, 0.25, 1024)
    _check_range("lmcache_memory_gib", cache.memory_gib, 0.25, 8192)
    _check_range("gpu_memory_share", engine.gpu_memory_share, 0.1, 0.98)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigError(lambda option: f"{option(name)} is {value:g}, but must be {least:g} to {most:g}.")
