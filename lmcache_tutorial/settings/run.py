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
from ..machine.cuda import cuda_works
from .bars import MIN_HIT_RATE, MIN_TTFT_DROP, Thresholds, percent
from .environment import machine_memory_gib
from .errors import ConfigError
from .number_format import number_format
from .paths import user_path
from .profiles import DEFAULT_MODEL, GPU_MODEL, PROFILES, SizeClass
from .size_classes import classes_for
from .topology import StackConfig

SMALL_CHUNK_TOKENS = 32  # one block, for the smallest documents
LMCACHE_SHARE = 0.6  # of a GPU machine's memory: lesson 3 keeps seven prompts of 60,000 tokens, 51 GiB


@dataclass(frozen=True)
class RunConfig:
    """One run of the suite: its stack, the sizes that its lessons may have, its bars, its report's folder.

    ``dtype_reason`` says why the engine computes in this number format.
    """

    stack: StackConfig
    classes: tuple[SizeClass, ...]
    dtype_reason: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)
    report_dir: Path = Path("reports")
    keep_stack: bool = False
    allow_slow_lmcache: bool = False
    peers: str | None = None


def run_config(
    *,
    stack: str = "auto",
    model: str | None = None,
    dtype: str = "auto",
    chunk_tokens: int | None = None,
    engine_memory_gib: float | None = None,
    lmcache_memory_gib: float | None = None,
    gpu_memory_share: float | None = None,
    min_hit_rate: float = MIN_HIT_RATE,
    min_ttft_drop: float = MIN_TTFT_DROP,
    report_dir: Path = Path("reports"),
    keep_stack: bool = False,
    allow_slow_lmcache: bool = False,
    peers: str | None = None,
    has_gpu: Callable[[], bool] | None = None,
) -> RunConfig:
    """Turn options into a checked configuration.

    Args:
        stack: ``auto``, ``cpu`` or ``gpu``.
        model: ``smollm2``, ``shape:llama-3.1-8b``, a model folder or a hub name; ``None`` is the profile's.
        dtype: ``auto``, ``bfloat16`` or ``float32``, see :func:`number_format`.
        chunk_tokens: LMCache's chunk; ``None`` is the profile's, on a processor with AVX2 alone one block.
        engine_memory_gib: memory of the engine's KV cache [GiB]; ``None`` is the profile's.
        lmcache_memory_gib: LMCache's memory [GiB]; ``None`` is the profile's, on a GPU machine a share of
            the machine's memory.
        gpu_memory_share: share of the GPU's memory that the engine takes, 0.1 to 0.98.
        min_hit_rate: bar in per cent, 1 to below 100, or 0.
        min_ttft_drop: likewise.
        report_dir: folder that the report is written to; see :func:`writable_folder`.
        keep_stack: leave the servers running after the run.
        allow_slow_lmcache: measure on a GPU although LMCache's compiled operations are missing.
        peers: the set of peers to be measured side by side, or ``None``.
        has_gpu: tells whether CUDA works; ``None`` asks the driver.

    Raises:
        ConfigError: a value cannot work; nothing was started.
    """
    profile = PROFILES[_profile_name(stack, has_gpu or cuda_works)]
    if peers == "tuning" and profile.stack.profile == "cpu":
        raise ConfigError(
            "--peers=tuning measures settings of a GPU's stack, and this is the CPU's.\nTo fix: --peers"
        )
    if peers and (engine_memory_gib is not None or lmcache_memory_gib is not None):
        raise ConfigError(
            "--peers gives every peer as much memory as its longest prompts need, so that they can be "
            "compared.\nTo fix: leave --engine-memory-gib and --lmcache-memory-gib out"
        )
    settings = replace(profile.stack, model=checked_model(model or profile.stack.model))
    if settings.profile == "gpu":
        settings = settings.with_caches(memory_gib=round(LMCACHE_SHARE * machine_memory_gib()))
    chosen, reason = number_format(dtype, profile.stack.profile)
    settings = replace(settings, dtype=chosen)
    if settings.profile == "cpu" and instruction_set_here() == LEAST_INSTRUCTION_SET:
        settings = settings.with_caches(chunk_tokens=SMALL_CHUNK_TOKENS)
    engines = {"memory_gib": engine_memory_gib, "gpu_memory_share": gpu_memory_share}
    caches = {"chunk_tokens": chunk_tokens, "memory_gib": lmcache_memory_gib}
    settings = settings.with_engines(**_given(engines)).with_caches(**_given(caches))
    _check_stack(settings)
    thresholds = Thresholds(
        percent("--min-hit-rate", min_hit_rate) / 100, percent("--min-ttft-drop", min_ttft_drop) / 100
    )
    report_dir = user_path("--report-dir", report_dir).absolute()
    return RunConfig(
        settings,
        classes_for(profile.classes, settings.cache.chunk_tokens, settings.engine.context_tokens),
        reason,
        thresholds,
        report_dir,
        keep_stack,
        allow_slow_lmcache,
        peers,
    )


def checked_model(model: str) -> str:
    """Check a ``--model`` value without asking the network: our own, a shape, a model folder, or a hub name.

    Raises:
        ConfigError: a folder that is no model, or a text that can be neither folder nor hub name.
    """
    if model in (DEFAULT_MODEL, GPU_MODEL):
        return model
    if model.startswith("shape:"):
        raise ConfigError(f"--model {model} is no known shape.\nTo fix: --model={GPU_MODEL}")
    folder = user_path("--model", model)
    if folder.is_dir():
        missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
        weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
        if missing or not weights:
            seen = ", ".join(missing) or "weights (*.safetensors)"
            raise ConfigError(
                f"--model {model} is a folder but no model: it lacks {seen}.\n"
                f"To fix: name a folder made by save_pretrained, or leave --model out for the tutorial's own."
            )
        return str(folder.resolve())
    if folder.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ConfigError(
            f"--model {model} is neither a model folder nor a hub name (organisation/name).\n"
            f"To fix: check the path, or leave --model out for the tutorial's own small model."
        )
    return model


def _profile_name(stack: str, has_gpu: Callable[[], bool]) -> str:
    if stack == "auto":
        return "gpu" if has_gpu() else "cpu"
    if stack not in PROFILES:
        raise ConfigError(f"--stack is {stack!r}, but must be one of auto, cpu, gpu.")
    if stack == "gpu" and not has_gpu():
        raise ConfigError(
            "--stack=gpu needs a CUDA device, and the NVIDIA driver reports none.\n"
            "To fix: run on a GPU machine, or use --stack=cpu."
        )
    return stack


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_stack(config: StackConfig) -> None:
    engine, cache = config.engine, config.cache
    if cache.chunk_tokens < 1 or (engine.block_tokens and cache.chunk_tokens % engine.block_tokens):
        block = engine.block_tokens or 1
        nearest = max(block, cache.chunk_tokens // block * block)
        raise ConfigError(
            f"--chunk-tokens is {cache.chunk_tokens}, but an LMCache chunk must be a multiple of the "
            f"engine's block of {block} tokens.\nTo fix: --chunk-tokens={nearest}"
        )
    if engine.memory_gib is not None and not 0.25 <= engine.memory_gib <= 1024:
        raise ConfigError(f"--engine-memory-gib is {engine.memory_gib:g}, but must be 0.25 to 1024.")
    if not 0.25 <= cache.memory_gib <= 8192:
        raise ConfigError(f"--lmcache-memory-gib is {cache.memory_gib:g}, but must be 0.25 to 8192.")
    if not 0.1 <= engine.gpu_memory_share <= 0.98:
        raise ConfigError(f"--gpu-memory-share is {engine.gpu_memory_share:g}, but must be 0.1 to 0.98.")
