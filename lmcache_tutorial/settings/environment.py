"""What comes from and goes to the environment: folders, devices, the servers' variables, secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..machine.checks import total_memory_gib
from .secrets import is_secret
from .topology import StackConfig


def machine_memory_gib() -> float:
    """Read the memory of this machine, or of the container around us where that is less [GiB]."""
    return total_memory_gib()


def cache_folder() -> Path:
    """Where models and kept stacks live: ``LMCACHE_TUTORIAL_CACHE``, else the user's cache folder."""
    if chosen := os.environ.get("LMCACHE_TUTORIAL_CACHE"):
        return Path(os.path.expanduser(chosen)).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "lmcache-tutorial"


def server_environment(config: StackConfig) -> dict[str, str]:
    """Build the environment of the servers: ours, less every secret, plus what the stack needs.

    Usage reports are off, the hub is offline (the model lies on disk), and the hash seed is fixed so that
    block hashes agree between processes and restarts. What they import is compiled once;
    at each start it would take 25 s.
    """
    kept = {name: value for name, value in os.environ.items() if not is_secret(name, value)}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "LMCACHE_TRACK_USAGE": "false",
        "LMCACHE_DISABLE_BANNER": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "",
        "VLLM_SERVER_DEV_MODE": "1",  # POST /reset_prefix_cache; the servers listen on loopback only
        "VLLM_HOST_IP": "127.0.0.1",
        **dict(config.environment),
    }


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
