"""What a run was asked to do. The only reader of command-line options and environment variables."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

DEFAULT_MODEL = "smollm2"
MIN_HIT_RATE, MIN_TTFT_DROP = 90.0, 70.0
CONVERTED_MODELS = "models"


class ConfigError(ValueError):
    """A setting that cannot work; the message says what to do. Found before any server starts."""


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


@dataclass(frozen=True)
class Thresholds:
    """The bars of the acceptance gate, as fractions of 1; a bar is passed by going above it."""

    min_hit_rate: float = MIN_HIT_RATE / 100
    min_ttft_drop: float = MIN_TTFT_DROP / 100


@dataclass(frozen=True)
class RunConfig:
    """One run of the suite: its stack, its bars and where its report goes."""

    stack: StackConfig
    sizes: LessonSizes
    thresholds: Thresholds = field(default_factory=Thresholds)
    report_dir: Path = Path("reports")
    keep_stack: bool = False


def run_config(
    *,
    stack: str = "auto",
    model: str = DEFAULT_MODEL,
    chunk_tokens: int | None = None,
    engine_memory_gib: float | None = None,
    min_hit_rate: float = MIN_HIT_RATE,
    min_ttft_drop: float = MIN_TTFT_DROP,
    report_dir: Path = Path("reports"),
    keep_stack: bool = False,
) -> RunConfig:
    """Turn options into a checked configuration.

    Args:
        stack: ``auto``, ``cpu`` or ``gpu``.
        model: ``smollm2``, a model folder or a hub name.
        chunk_tokens: LMCache's chunk; ``None`` is the profile's.
        engine_memory_gib: memory of the engine's KV cache [GiB]; ``None`` is the profile's.
        min_hit_rate: bar in per cent, 1 to below 100, or 0.
        min_ttft_drop: likewise.
        report_dir: folder that the report is written to; see :func:`writable_folder`.
        keep_stack: leave the servers running after the run.

    Raises:
        ConfigError: a value cannot work; nothing was started.
    """
    profile = PROFILES[_profile_name(stack)]
    settings = replace(profile.stack, model=checked_model(model))
    if chunk_tokens is not None:
        settings = replace(settings, chunk_tokens=chunk_tokens)
    if engine_memory_gib is not None:
        settings = replace(settings, engine_memory_gib=engine_memory_gib)
    _check_stack(settings)
    thresholds = Thresholds(
        percent("--min-hit-rate", min_hit_rate) / 100, percent("--min-ttft-drop", min_ttft_drop) / 100
    )
    return RunConfig(settings, profile.sizes, thresholds, report_dir.expanduser().absolute(), keep_stack)


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
    """Check a ``--model`` value without asking the network: our own, a model folder, or a hub name.

    Raises:
        ConfigError: a folder that is no model, or a text that can be neither folder nor hub name.
    """
    if model == DEFAULT_MODEL:
        return model
    folder = Path(model).expanduser()
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


def cuda_works() -> bool:
    """Ask the NVIDIA driver, without importing torch, whether it has a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False


def cache_folder() -> Path:
    """Where models and kept stacks live: ``LMCACHE_TUTORIAL_CACHE``, else the user's cache folder."""
    if chosen := os.environ.get("LMCACHE_TUTORIAL_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "lmcache-tutorial"


def server_environment(config: StackConfig) -> dict[str, str]:
    """Build the environment of the servers: ours, less every secret, plus what the stack needs.

    Usage reports are off, the hub is offline (the model lies on disk), and the hash seed is fixed so that
    block hashes agree between processes and restarts.
    """
    kept = {name: value for name, value in os.environ.items() if not is_secret(name)}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "LMCACHE_TRACK_USAGE": "false",
        "LMCACHE_DISABLE_BANNER": "1",
        "PYTHONHASHSEED": "0",
        "VLLM_SERVER_DEV_MODE": "1",  # POST /reset_prefix_cache; the servers listen on loopback only
        "VLLM_HOST_IP": "127.0.0.1",
        **({"VLLM_CPU_KVCACHE_SPACE": f"{config.engine_memory_gib:g}"} if config.profile == "cpu" else {}),
        **dict(config.environment),
    }


def is_secret(name: str) -> bool:
    """Tell whether an environment variable may hold a key that no server, report or log should see.

    >>> is_secret("LANGFUSE_SECRET_KEY"), is_secret("OPENAI_API_KEY"), is_secret("HOME")
    (True, True, False)
    """
    name = name.upper()
    return name.startswith("LANGFUSE") or any(
        word in name for word in ("API_KEY", "SECRET", "TOKEN", "PASSWORD", "CREDENTIAL")
    )


def redact(text: str) -> str:
    """Replace the value of every secret environment variable (8 characters or more) in a text."""
    for name, value in os.environ.items():
        if is_secret(name) and len(value) >= 8:
            text = text.replace(value, f"[{name}]")
    return text


def langfuse_variables_set() -> bool:
    """Tell whether the environment names a Langfuse server or its keys."""
    return any(name.startswith("LANGFUSE_") for name in os.environ)


@contextmanager
def without_tracing_variables() -> Iterator[None]:
    """Hide ``LANGFUSE_*`` and ``OTEL_*`` from a tracing client that is built meanwhile."""
    hidden = {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("LANGFUSE_", "OTEL_"))
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _profile_name(stack: str) -> str:
    if stack == "auto":
        return "gpu" if cuda_works() else "cpu"
    if stack not in PROFILES:
        raise ConfigError(f"--stack is {stack!r}, but must be one of auto, cpu, gpu.")
    if stack == "gpu" and not cuda_works():
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
    if config.profile == "cpu" and not 0.25 <= config.engine_memory_gib <= 1024:
        raise ConfigError(f"--engine-memory-gib is {config.engine_memory_gib:g}, but must be 0.25 to 1024.")
