"""Open a stack: reuse the kept one if it matches, else start servers; keep them if asked; take them down.

The state file names the servers and what they were started for; a lock beside it is held by whoever uses
them, so that two runs never share counters.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from ..config import RunConfig, StackConfig, cache_folder
from ..doctor import ENGINES, resources
from ..files import write_atomically
from ..model import Model, ModelError, prepare
from ..process import Server, ServerRecord
from .running import Progress, Stack
from .starting import launch, wait_ready

LMCACHE_FILLS = 0.8  # of its memory, before it evicts
FIX_DOWN = "To fix: lmcache-tutorial down"


class StackError(RuntimeError):
    """A stack cannot be opened; the message says what to do."""


def open_stack(run: RunConfig, progress: Progress = print) -> Stack:
    """Return a ready stack for a configuration: the kept one where it matches, else a new one.

    Args:
        run: the configuration; with ``keep_stack`` the servers outlive this process.
        progress: told what happens, a line at a time.

    Raises:
        StackError: the kept stack does not match or is in use, or the machine lacks something.
        ServerError: a server did not start; nothing is left running.
        ModelError: the model cannot be had.
    """
    model = prepare(run.stack.model, progress)
    lease = _lock()
    try:
        if lease is None:
            if run.keep_stack:
                raise StackError(
                    "the kept stack is in use by another run: --keep-stack must wait.\nTo fix: wait."
                )
            progress("stack: the kept stack is in use by another run; starting one of our own")
        elif servers := _living_servers():
            return _reuse(run, model, servers, lease, progress)
        stack = _start(run, model, progress)
    except BaseException:
        if lease:
            lease.close()
        raise
    if run.keep_stack:
        stack.lease, stack.kept, stack.on_restart = lease, True, _write
        _write(stack)
    elif lease:
        lease.close()
    return stack


def take_down(progress: Progress = print) -> None:
    """Stop the kept stack, if there is one.

    Raises:
        StackError: a run is using it.
    """
    lease = _lock()
    if lease is None:
        raise StackError(
            "the kept stack is in use by a run.\nTo fix: wait for it, or stop it, and call again."
        )
    with lease:
        for server in _living_servers().values():
            server.stop()
            progress(f"stack: {server.record.name} stopped")
        state_file().unlink(missing_ok=True)


def kept_servers() -> dict[str, Server]:
    """Return the kept servers that still run, by name; empty without a kept stack."""
    return _living_servers()


def state_file() -> Path:
    """Where the kept stack is written down."""
    return cache_folder() / "kept" / "stack.json"


def identity(config: StackConfig, model: Model) -> str:
    """Hash what must match before a stack is reused: configuration, package versions, model."""
    versions = [f"{name} {metadata.version(name)}" for name in (ENGINES[config.profile], "lmcache", "torch")]
    text = json.dumps([asdict(config), versions, model.digest, str(model.folder)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _start(run: RunConfig, model: Model, progress: Progress) -> Stack:
    for check in resources(run.stack):
        if not check.ok:
            raise StackError(f"{check.name} is too small: {check.seen}.\nTo fix: {check.remedy}")
    with suppress(ModelError):
        kept_gib = run.sizes.rounds * run.sizes.long * model.kv_bytes_per_token() / LMCACHE_FILLS / 2**30
        if run.stack.lmcache_memory_gib < kept_gib:
            progress(
                f"stack: LMCache has {run.stack.lmcache_memory_gib:g} GiB; lesson 3 keeps its prompts in "
                f"{kept_gib:.0f} GiB, and will miss what is evicted (--lmcache-memory-gib={kept_gib:.0f})"
            )
    logs = state_file().parent / "logs" if run.keep_stack else run.report_dir / "logs"
    stack = launch(run.stack, model, logs, progress)
    about = "about 35 s on 2 cores" if run.stack.profile == "cpu" else "up to 3 minutes the first time"
    progress(f"stack: starting LMCache and vLLM side by side ({about})")
    wait_ready(stack)
    return stack


def _write(stack: Stack) -> None:
    """Hand the servers over, then write them down (atomically)."""
    for server in stack.servers:
        server.keep()
    state = {
        "identity": identity(stack.config, stack.model),
        "config": asdict(stack.config),
        "lmcache_http": stack.lmcache_http,
        "engine_is_whole": stack.engine_has_lmcache,
        "servers": [server.state() for server in stack.servers],
    }
    write_atomically(state_file(), json.dumps(state, indent=1))


def _read() -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(state_file().read_text())
        return state
    except (OSError, ValueError):
        return {"servers": []}


def _living_servers() -> dict[str, Server]:
    found = {}
    for fields in _read()["servers"]:
        record = ServerRecord(**{**fields, "command": tuple(fields["command"])})
        if server := Server.attach(record):
            found[record.name] = server
    return found


def _reuse(
    run: RunConfig, model: Model, servers: dict[str, Server], lease: IO[str], progress: Progress
) -> Stack:
    state = _read()
    if len(servers) < 2 or state["identity"] != identity(run.stack, model):
        what = _mismatch(servers, run.stack)
        raise StackError(f"a kept stack is running, but it {what}.\n  checked  {state_file()}\n{FIX_DOWN}")
    progress(f"stack: reusing the kept stack at {servers['vllm'].url}")
    stack = Stack(
        run.stack, model, servers["vllm"], servers["lmcache"], state["lmcache_http"], progress,
        on_restart=_write, lease=lease, kept=True,
    )  # fmt: skip
    if not (stack.lmcache_answers() and stack.engine_answers()):
        raise StackError(
            f"the kept stack runs but does not answer.\n  checked  {stack.engine.url}\n{FIX_DOWN}"
        )
    if not state["engine_is_whole"]:  # a run was cut off in a control without LMCache
        stack.restart_engine()
    return stack


def _mismatch(servers: dict[str, Server], config: StackConfig) -> str:
    if len(servers) < 2:
        return f"is not whole (only {', '.join(servers)} runs)"
    kept = _read()["config"]
    changed = [
        name for name, value in json.loads(json.dumps(asdict(config))).items() if kept.get(name) != value
    ]
    return (
        f"was started with another {', '.join(changed)}" if changed else "has other packages or another model"
    )


def _lock() -> IO[str] | None:
    state_file().parent.mkdir(parents=True, exist_ok=True)
    handle = (state_file().parent / "lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle
