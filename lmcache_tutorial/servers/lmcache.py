"""LMCache's multi-process server: its command line, its start, its health."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import httpx

from ..settings.environment import server_environment
from ..settings.profiles import StackConfig
from .process import Server


def start_lmcache(config: StackConfig, *, port: int, http_port: int, log: Path, run_id: str) -> Server:
    """Start LMCache's server; it is not ready yet. Its shared memory carries the run's id."""
    command = lmcache_command(config, port=port, http_port=http_port, shm_name=run_id)
    smaller = max(0.25, config.lmcache_memory_gib / 2)
    return Server.start(
        "lmcache",
        command,
        port=port,
        log=log,
        env=server_environment(config),
        shm_name=run_id,
        remedies=[f"let LMCache take less memory: pytest --kv-lmcache-memory-gib={smaller:g}"],
    )


def lmcache_answers(client: httpx.Client, url: str) -> bool:
    """Ask LMCache's health check."""
    with suppress(httpx.TransportError):
        return client.get(f"{url}/healthcheck", timeout=2).status_code == 200
    return False


def lmcache_command(config: StackConfig, *, port: int, http_port: int, shm_name: str) -> list[str]:
    """Build LMCache's multi-process server: its message port, its HTTP port, its memory."""
    # An engine that copies itself, as every CPU engine does, takes the KV from a shared segment; without one
    # it travels pickled through a socket, ten times slower. Else the server copies from and to the memory of
    # a GPU engine (CUDA IPC). For that it maps this memory, and a dead engine's stays taken until its
    # registration is given up: after 30 s of silence, the least that is allowed, instead of 120.
    mapped = config.transfer == "lmcache_driven"
    segment = ["", "--worker-reap-timeout-seconds", "30"] if mapped else [shm_name]
    return [
        sys.executable, "-m", "lmcache.cli.main", "server",
        "--host", "127.0.0.1", "--port", str(port),
        "--http-host", "127.0.0.1", "--http-port", str(http_port),
        "--l1-size-gb", f"{config.lmcache_memory_gib:g}",
        "--eviction-policy", "LRU",
        "--chunk-size", str(config.chunk_tokens),
        "--supported-transfer-mode", config.transfer, "--shm-name", *segment,
        *config.lmcache_arguments,
    ]  # fmt: skip
