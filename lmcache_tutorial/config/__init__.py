"""What a run was asked to do. The only reader of command-line options and environment variables."""

from .environment import (
    cache_folder,
    langfuse_variables_set,
    machine_memory_gib,
    server_environment,
    without_tracing_variables,
)
from .options import (
    DTYPES,
    MIN_HIT_RATE,
    MIN_TTFT_DROP,
    ConfigError,
    RunConfig,
    Thresholds,
    percent,
    run_config,
    user_path,
    writable_folder,
)
from .profiles import (
    DEFAULT_MODEL,
    GPU_ENVIRONMENT,
    GPU_MODEL,
    PROFILES,
    LessonSizes,
    Offload,
    Profile,
    SizeClass,
    StackConfig,
)
from .secrets import is_secret, redact

__all__ = [
    "DEFAULT_MODEL",
    "DTYPES",
    "GPU_ENVIRONMENT",
    "GPU_MODEL",
    "MIN_HIT_RATE",
    "MIN_TTFT_DROP",
    "PROFILES",
    "ConfigError",
    "LessonSizes",
    "Offload",
    "Profile",
    "RunConfig",
    "SizeClass",
    "StackConfig",
    "Thresholds",
    "cache_folder",
    "is_secret",
    "langfuse_variables_set",
    "machine_memory_gib",
    "percent",
    "redact",
    "run_config",
    "server_environment",
    "user_path",
    "without_tracing_variables",
    "writable_folder",
]
