"""Make a stack from its topology: start every program, or take over those that were kept.

Several stacks may start side by side.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx

from .. import servers
from ..models.model import Model
from ..servers.process import Server, wait_until_ready
from ..servers.program import Site
from ..settings.connections import CONNECTIONS
from ..settings.topology import ServerConfig, StackConfig
from .stack import Progress, Stack

CLIENT_LIMIT_S = 60.0


def launch(config: StackConfig, model: Model, logs: Path, progress: Progress) -> Stack:
    """Start the programs of a stack; they are not ready yet.

    Args:
        config: the stack.
        model: what its engines serve.
        logs: folder of a log for each program; those that are there are replaced.
        progress: told what happens, a line at a time.

    Raises:
        ServerError: a program could not be executed; nothing is left running.
    """
    site = _site(config, model, logs)
    for name, _ in named(config):
        (logs / f"{name}.log").unlink(missing_ok=True)
    try:
        for name, own in named(config):
            site.programs.append(_module(own).launch(site, own, name))
    except BaseException:
        for program in reversed(site.programs):
            program.process.stop()
        site.client.close()
        raise
    return Stack.of(site, progress)


def resume(
    config: StackConfig,
    model: Model,
    kept: Sequence[Mapping[str, Any]],
    processes: Mapping[str, Server],
    progress: Progress,
) -> Stack:
    """Take over the programs of a kept stack.

    Args:
        config: what it was started with.
        model: what its engines serve.
        kept: what was written down of each program, see `Program.state`.
        processes: the running process of each, by name.
        progress: told what happens, a line at a time.
    """
    site = _site(config, model, Path())
    states = {state["name"]: state for state in kept}
    for name, own in named(config):
        site.programs.append(_module(own).resume(site, own, states[name], processes[name]))
    return Stack.of(site, progress)


def wait_ready(stack: Stack, since: float | None = None) -> None:
    """Wait until every program of a stack answers.

    Args:
        stack: launched, alone or beside others.
        since: when it was launched, by ``time.monotonic`` [s]; now, unless given.

    Raises:
        ServerError: one died or was late; all are stopped then.
    """
    try:
        wait_until_ready(
            [(program.process, program.answers) for program in stack.programs],
            timeout_s=stack.config.ready_timeout_s,
            ready=lambda server, took: stack.progress(
                f"stack: {server.record.name} ready after {took:.0f} s"
            ),
            since=since,
        )
    except BaseException:
        stack.close()
        raise


def named(config: StackConfig) -> Iterator[tuple[str, ServerConfig]]:
    """Yield every program of a stack in the order in which they start, with its name.

    >>> from lmcache_tutorial.settings.topology import EngineConfig
    >>> two = StackConfig("cpu", "m", engines=(EngineConfig(), EngineConfig()))
    >>> [name for name, _ in named(two)]
    ['lmcache', 'vllm', 'vllm-2']
    """
    entries: list[ServerConfig] = [*config.tiers, *config.caches, *config.engines]
    entries += [config.router] if config.router else []
    seen: dict[str, int] = {}
    for own in entries:
        seen[own.program] = count = seen.get(own.program, 0) + 1
        yield (own.program if count == 1 else f"{own.program}-{count}"), own


def _module(own: ServerConfig) -> Any:
    """Import the module that starts a program: a new program is a new module of ``servers``."""
    return import_module(f"{servers.__name__}.{own.program}")


def _site(config: StackConfig, model: Model, logs: Path) -> Site:
    run_id = f"lct-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    return Site(
        config, model, logs, run_id, httpx.Client(timeout=CLIENT_LIMIT_S, limits=CONNECTIONS, trust_env=False)
    )
