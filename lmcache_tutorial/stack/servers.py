"""The two servers: start one, and ask whether it answers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import httpx

from ..config import StackConfig, server_environment
from ..model import Model
from ..process import Server
from .commands import engine_command, lmcache_command


def start_engine(
    config: StackConfig, model: Model, *, port: int, log: Path, lmcache_port: int | None
) -> Server:
    """Start vLLM; it is not ready yet."""
    command = engine_command(config, model, port=port, lmcache_port=lmcache_port)
    if config.profile == "gpu":
        remedy = "give the engine another share of the GPU's memory: pytest --gpu-memory-share=0.8"
    else:
        remedy = (
            f"give the engine more room: pytest --engine-memory-gib={2 * (config.engine_memory_gib or 1):g}"
        )
    return Server.start(
        "vllm", command, port=port, log=log, env=server_environment(config), remedies=[remedy]
    )


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
        remedies=[f"let LMCache take less memory: pytest --lmcache-memory-gib={smaller:g}"],
    )


def engine_answers(client: httpx.Client, url: str, model: str) -> bool:
    """Ask for one token: an engine whose /health is green may still be unable to run its model."""
    body = {"model": model, "prompt": "ready?", "max_tokens": 1}
    with suppress(httpx.TransportError):
        if client.get(f"{url}/health", timeout=2).status_code == 200:
            return client.post(f"{url}/v1/completions", json=body).status_code == 200
    return False


def lmcache_answers(client: httpx.Client, url: str) -> bool:
    """Ask LMCache's health check."""
    with suppress(httpx.TransportError):
        return client.get(f"{url}/healthcheck", timeout=2).status_code == 200
    return False
