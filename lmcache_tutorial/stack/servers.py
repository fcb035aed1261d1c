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
    return Server.start("vllm", command, port=port, log=log, env=server_environment(config))


def start_lmcache(config: StackConfig, *, port: int, http_port: int, log: Path, run_id: str) -> Server:
    """Start LMCache's server; it is not ready yet. Its shared memory carries the run's id."""
    command = lmcache_command(config, port=port, http_port=http_port, shm_name=run_id)
    return Server.start(
        "lmcache", command, port=port, log=log, env=server_environment(config), shm_name=run_id
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
