"""Start stacks: each an engine with what its configuration puts beside it. Several may start side by side."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from ..models.prepare import Model
from ..servers.lmcache import start_lmcache
from ..servers.ports import free_port
from ..servers.process import wait_until_ready
from ..servers.vllm import start_engine
from ..settings.profiles import StackConfig
from .stack import Progress, Stack


def launch(config: StackConfig, model: Model, logs: Path, progress: Progress) -> Stack:
    """Start the servers of a stack; they are not ready yet.

    Args:
        config: the stack; with another ``offload`` than ``lmcache`` there is no LMCache server.
        model: what the engine serves.
        logs: folder of ``lmcache.log`` and ``vllm.log``; those that are there are replaced.
        progress: told what happens, a line at a time.

    Raises:
        ServerError: a program could not be executed; nothing is left running.
    """
    run_id = f"lct-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    for name in ("lmcache.log", "vllm.log"):
        (logs / name).unlink(missing_ok=True)
    lmcache, port, lmcache_http = None, None, None
    if config.offload == "lmcache":
        port, http_port = free_port(), free_port()
        lmcache_http = f"http://127.0.0.1:{http_port}"
        lmcache = start_lmcache(
            config, port=port, http_port=http_port, log=logs / "lmcache.log", run_id=run_id
        )
    try:
        engine = start_engine(config, model, port=free_port(), log=logs / "vllm.log", lmcache_port=port)
    except BaseException:
        if lmcache:
            lmcache.stop()
        raise
    stack = Stack(config, model, engine, lmcache, lmcache_http, progress)
    stack.engine_has_lmcache = lmcache is not None
    return stack


def wait_ready(stack: Stack, since: float | None = None) -> None:
    """Wait until every server of a stack answers.

    Args:
        stack: launched, alone or beside others.
        since: when it was launched, by ``time.monotonic`` [s]; now, unless given.

    Raises:
        ServerError: one died or was late; both are stopped then.
    """
    probes = [(stack.engine, stack.engine_answers)]
    probes += [(stack.lmcache, stack.lmcache_answers)] if stack.lmcache else []
    try:
        wait_until_ready(
            probes,
            timeout_s=stack.config.ready_timeout_s,
            ready=lambda server, took: stack.progress(
                f"stack: {server.record.name} ready after {took:.0f} s"
            ),
            since=since,
        )
    except BaseException:
        stack.close()
        raise
