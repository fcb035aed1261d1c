"""Options -> a checked configuration of one run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..machine import LEAST_INSTRUCTION_SET, best_instruction_set, instruction_set_here, processor_flags
from .environment import cuda_works, machine_memory_gib
from .profiles import DEFAULT_MODEL, GPU_MODEL, PROFILES, SizeClass, StackConfig

DTYPES = ("auto", "bfloat16", "float32")
FEWEST_CHUNKS = 16  # of a long document: with fewer, rounding alone could take a hit rate below the bar
SMALL_CHUNK_TOKENS = 32  # one block, for the smallest documents
MIN_HIT_RATE, MIN_TTFT_DROP = 90.0, 70.0
LMCACHE_SHARE = 0.6  # of a GPU machine's memory: lesson 3 keeps seven prompts of 60,000 tokens, 51 GiB


class ConfigError(ValueError):
    """A setting that cannot work; the message says what to do. Found before any server starts."""


@dataclass(frozen=True)
class Thresholds:
    """The bars of the acceptance gate, as fractions of 1; a bar is passed by going above it."""

    min_hit_rate: float = MIN_HIT_RATE / 100
    min_ttft_drop: float = MIN_TTFT_DROP / 100


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
        settings = replace(settings, lmcache_memory_gib=round(LMCACHE_SHARE * machine_memory_gib()))
    chosen, reason = number_format(dtype, profile.stack.profile)
    settings = replace(settings, dtype=chosen)
    if settings.profile == "cpu" and instruction_set_here() == LEAST_INSTRUCTION_SET:
        settings = replace(settings, chunk_tokens=SMALL_CHUNK_TOKENS)
    given: dict[str, Any] = {
        "chunk_tokens": chunk_tokens,
        "engine_memory_gib": engine_memory_gib,
        "lmcache_memory_gib": lmcache_memory_gib,
        "gpu_memory_share": gpu_memory_share,
    }
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    _check_stack(settings)
    thresholds = Thresholds(
        percent("--min-hit-rate", min_hit_rate) / 100, percent("--min-ttft-drop", min_ttft_drop) / 100
    )
    report_dir = user_path("--report-dir", report_dir).absolute()
    return RunConfig(
        settings,
        classes_for(profile.classes, settings.chunk_tokens, settings.context_tokens),
        reason,
        thresholds,
        report_dir,
        keep_stack,
        allow_slow_lmcache,
        peers,
    )


def number_format(wanted: str, profile: str) -> tuple[str, str]:
    """Choose the format in which the engine computes and keeps KV.

    A processor without bf16 instructions emulates them: it prefills at less than half the rate of float32.

    Args:
        wanted: ``auto``, ``bfloat16`` or ``float32``.
        profile: ``cpu`` or ``gpu``.

    Returns:
        The format and, in words that may follow "since", the reason.

    Raises:
        ConfigError: no such format, or the engine would die in it here.
    """
    if wanted not in DTYPES:
        raise ConfigError(f"--dtype is {wanted!r}, but must be one of {', '.join(DTYPES)}.")
    if profile == "gpu":
        chosen = "bfloat16" if wanted == "auto" else wanted
        return chosen, "a GPU computes in it" if wanted == "auto" else "it was asked for"
    best, used = best_instruction_set(processor_flags()), instruction_set_here()
    # vLLM's bf16 attention takes AMX wherever the processor has it. oneDNN, told to use less, does not ask
    # the kernel for AMX's registers, and the engine dies of the first such instruction.
    dies = best == "AMX" and used != "AMX"
    if wanted == "bfloat16" and dies:
        raise ConfigError(
            "--dtype=bfloat16 and ONEDNN_MAX_CPU_ISA exclude each other on a processor with AMX: vLLM would "
            "use AMX all the same, and its engine would die.\n"
            "To fix: unset ONEDNN_MAX_CPU_ISA, or --dtype=float32"
        )
    if wanted != "auto":
        return wanted, "it was asked for"
    if used in ("AMX", "AVX512_BF16") and not dies:
        return "bfloat16", f"the processor computes in it ({used})"
    limited = ", as ONEDNN_MAX_CPU_ISA limits it," if used != best else ""
    return "float32", f"the processor{limited} has no bf16 instructions ({used})"


def classes_for(
    classes: tuple[SizeClass, ...], chunk_tokens: int, context_tokens: int
) -> tuple[SizeClass, ...]:
    """Leave out the sizes whose long document has fewer than 16 chunks.

    Where none has as many, the largest is made longer, as far as the context leaves room for it.

    Args:
        classes: from the slowest to the fastest machines.
        chunk_tokens: LMCache's chunk [tokens].
        context_tokens: the longest prompt that the engine takes [tokens].
    """
    fitting = tuple(one for one in classes if one.sizes.long >= FEWEST_CHUNKS * chunk_tokens)
    long = (FEWEST_CHUNKS + 1) * chunk_tokens
    if fitting or long > context_tokens * 0.6:
        return fitting or classes[-1:]
    sizes = replace(classes[-1].sizes, short=long // 4, medium=long // 2, long=long)
    return (SizeClass(0, sizes),)


def percent(option: str, value: float) -> float:
    """Check a bar given in per cent.

    >>> percent("--min-hit-rate", 90)
    90.0

    Raises:
        ConfigError: below 0, 100 or more, not a number, or a fraction by mistake.
    """
    value = float(value)
    if math.isnan(value) or not 0 <= value < 100:
        raise ConfigError(f"{option} is {value:g}, but must be a per cent value from 0 to below 100.")
    if 0 < value < 1:
        raise ConfigError(f"{option} is {value:g}: per cent, not a fraction. Did you mean {value * 100:g}?")
    return value


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


def user_path(option: str, text: str | Path) -> Path:
    """Read a path as a shell would: ``~`` is the user's home, also behind an ``=``, where shells leave it.

    >>> user_path("--report-dir", "reports")
    PosixPath('reports')

    Raises:
        ConfigError: it names the home of nobody.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{option} is {str(text)!r}, but no user of that name has a home here.\n"
            f"To fix: write the path without ~"
        ) from None


def writable_folder(path: Path) -> None:
    """Make a folder and prove that a file can be written into it.

    Raises:
        ConfigError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"--report-dir {path} cannot be written: {error.strerror or error}.\n"
            f"To fix: name a folder of yours, for example --report-dir=reports"
        ) from None


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


def _check_stack(config: StackConfig) -> None:
    if config.chunk_tokens < 1 or (config.block_tokens and config.chunk_tokens % config.block_tokens):
        block = config.block_tokens or 1
        nearest = max(block, config.chunk_tokens // block * block)
        raise ConfigError(
            f"--chunk-tokens is {config.chunk_tokens}, but an LMCache chunk must be a multiple of the "
            f"engine's block of {block} tokens.\nTo fix: --chunk-tokens={nearest}"
        )
    if config.engine_memory_gib is not None and not 0.25 <= config.engine_memory_gib <= 1024:
        raise ConfigError(f"--engine-memory-gib is {config.engine_memory_gib:g}, but must be 0.25 to 1024.")
    if not 0.25 <= config.lmcache_memory_gib <= 8192:
        raise ConfigError(f"--lmcache-memory-gib is {config.lmcache_memory_gib:g}, but must be 0.25 to 8192.")
    if not 0.1 <= config.gpu_memory_share <= 0.98:
        raise ConfigError(f"--gpu-memory-share is {config.gpu_memory_share:g}, but must be 0.1 to 0.98.")
