"""Open a stack: reuse the kept one if it matches, else start servers; keep them if asked; take them down.

The state file names the servers and what they were started for; a lock beside it is held by whoever uses
them, so that two runs never share counters.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from importlib import metadata
from typing import IO

from ..machine.checks import instruction_set_here, processor
from ..machine.files import write_atomically
from ..models.model import Model, ModelError
from ..models.prepare import prepare
from ..servers.process import Server
from ..settings.environment import cache_folder
from ..settings.packages import AROUND, ENGINES
from ..settings.profiles import PROFILES
from ..settings.run import RunConfig
from ..settings.topology import StackConfig
from ..settings.workload import Memory, Workload, fit
from .fresh import check_statements, start_fresh
from .kept_state import (
    STATE_SCHEMA,
    KeptState,
    StackError,
    kept_servers,
    lock,
    lock_file,
    read_state,
    state_file,
    who_holds_the_lock,
)
from .restart import restart_engine
from .stack import WARM_UP_PROMPTS, Progress, Stack
from .start import named, resume

LMCACHE_FILLS = 0.8  # of its memory, before it evicts
FIX_DOWN = "To fix: lmcache-tutorial down"


def open_stack(run: RunConfig, progress: Progress = print) -> Stack:
    """Return a ready stack for a configuration: the kept one where it matches, else a new one.

    Args:
        run: the configuration; with ``keep_stack`` the servers outlive this process.
        progress: told what happens, a line at a time.

    Raises:
        StackError: the kept stack does not match, is in use or was written down by another version of this
            suite, or the machine lacks something.
        ServerError: a server did not start; nothing is left running.
        ModelError: the model cannot be had, or its context is too short for a lesson.
    """
    model = prepare(run.stack.model, progress)
    model.check_tensor_parallel(run.stack.tensor_parallel)
    run = _within_context(run, model)
    lease = lock()
    try:
        if lease is None:
            if run.keep_stack:
                raise StackError(
                    f"{who_holds_the_lock()}: a second one cannot be kept beside it.\n"
                    f"  checked  {lock_file()}\n"
                    f"To fix: wait for that run, or call pytest without --kv-keep"
                )
            progress(f"stack: {who_holds_the_lock()}; starting one of our own")
        elif servers := kept_servers():
            return _reuse(run, model, servers, lease, progress)
        elif not run.keep_stack:
            lease.close()  # a stack of our own is nobody else's business
        stack = _start(run, model, progress)
    except BaseException:
        if lease:
            lease.close()
        raise
    if run.keep_stack:
        stack.lease = lease
        _keep_or_close(stack)
    return stack


def _within_context(run: RunConfig, model: Model) -> RunConfig:
    """Ask no more of a model than it takes."""
    if not (tokens := model.context_tokens):
        return run
    if not (fitting := run.within(tokens)):
        chunk = run.stack.caches[0].chunk_tokens  # all have the same
        raise ModelError(
            f"{model.name} takes {tokens:,} tokens, in which a document of 16 chunks of {chunk} tokens and a "
            f"conversation about it have no room.\n"
            f"To fix: --kv-chunk-tokens={chunk // 2}, or a model with a longer context"
        )
    return fitting


def take_down(progress: Progress = print) -> None:
    """Stop the kept stack, if there is one.

    Raises:
        StackError: a run is using it, or another version of this suite wrote it down.
        ServerError: a server did not stop; the others are stopped all the same.
    """
    lease = lock()
    if lease is None:
        raise StackError(
            f"{who_holds_the_lock()}.\n"
            f"  checked  {lock_file()}\n"
            f"To fix: wait for that run, or stop it, and call again"
        )
    with lease:
        with ExitStack() as stopping:  # stops each, also where another does not stop; the last named first
            for server in reversed(kept_servers().values()):
                stopping.callback(_stop, server, progress)
        state_file().unlink(missing_ok=True)


def _stop(server: Server, progress: Progress) -> None:
    server.stop()
    progress(f"stack: {server.record.name} stopped")


@contextmanager
def lend(stack: Stack) -> Iterator[None]:
    """Let another process use a stack as a kept one, while this one waits; then take it back.

    The other may ask its servers and empty their caches, but must not restart them: they stay this run's.

    Raises:
        StackError: another stack is kept, or somebody holds the lock.
    """
    if stack.kept and stack.lease:  # it is written down already: only its lock stands in the way
        stack.lease.close()
        try:
            yield
        finally:
            stack.lease = lock()
        return
    if not (lease := lock()):
        raise StackError(f"{who_holds_the_lock()}.\n  checked  {lock_file()}\nTo fix: wait for that run")
    with lease:
        if kept_servers():
            raise StackError(f"another stack is kept.\n  checked  {state_file()}\n{FIX_DOWN}")
        _write_down(stack)
    try:
        yield
    finally:
        state_file().unlink(missing_ok=True)


def identity(config: StackConfig, model: Model) -> str:
    """Hash what must match before a stack is reused: configuration, package versions, model.

    Raises:
        StackError: a package is not installed.
    """
    try:
        around = [AROUND[own.program] for _, own in named(config) if own.program in AROUND]
        names = (ENGINES[config.profile], "lmcache", "torch", *around)
        versions = [f"{name} {metadata.version(name)}" for name in names]
    except metadata.PackageNotFoundError as error:
        raise StackError(
            f"a stack of the profile {config.profile} cannot be kept: {error.name} is not installed.\n"
            f"To fix: lmcache-tutorial doctor --stack {config.profile}"
        ) from None
    text = json.dumps([asdict(config), versions, model.digest, str(model.folder)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _start(run: RunConfig, model: Model, progress: Progress) -> Stack:
    with suppress(ModelError):
        _warn_of_eviction(run, model, progress)
    logs = state_file().parent / "logs" if run.keep_stack else run.report_dir / "logs"
    stack = start_fresh(run.stack, model, logs, progress)
    try:
        stack.workload = _measured_workload(run, model, stack)
    except BaseException:
        stack.close()
        raise
    return stack


def _warn_of_eviction(run: RunConfig, model: Model, progress: Progress) -> None:
    """Say so where lesson 3's prompts do not fit into LMCache's memory.

    They are asked again by an engine that was restarted, and that was warmed up by prompts that are kept too.
    """
    sizes, warm_up = run.classes[-1].sizes, PROFILES[run.stack.profile].warm_up_tokens
    kv_bytes = model.kv_bytes_per_token(run.stack.dtype, run.stack.tensor_parallel)
    kv_bytes *= sizes.rounds * sizes.long + WARM_UP_PROMPTS * warm_up
    kept_gib = math.ceil(kv_bytes / LMCACHE_FILLS / 2**30)
    for cache in run.stack.caches:
        if cache.memory_gib < kept_gib:
            progress(
                f"stack: LMCache has {cache.memory_gib:g} GiB; lesson 3 keeps its prompts in "
                f"{kept_gib} GiB, and will miss what is evicted "
                f"(pytest --kv-lmcache-memory-gib={kept_gib})"
            )


def _measured_workload(run: RunConfig, model: Model, stack: Stack) -> Workload:
    """Warm the engine up, and choose the sizes of the documents by the rate that this took."""
    memory = class_memory(run.stack, model)
    workload = fit(run.classes, stack.warm_up(), memory.last())
    memory.keep(workload)
    sizes = workload.sizes
    stack.progress(
        f"stack: prefill {workload.prefill_tokens_s:,.0f} tokens/s in {run.stack.dtype}; documents of "
        f"{sizes.short:,}, {sizes.medium:,} and {sizes.long:,} tokens: {workload.reason}"
    )
    return workload


def class_memory(config: StackConfig, model: Model) -> Memory:
    """Return what remembers the size class of such a stack on this machine."""
    threads = dict(config.environment).get("OMP_NUM_THREADS", "")
    parts = [processor(), instruction_set_here(), config.profile, config.dtype, threads, model.digest]
    parts += [f"{config.tensor_parallel} GPUs"] if config.tensor_parallel > 1 else []
    return Memory(cache_folder() / "size-classes.json", parts)


def _keep(stack: Stack) -> None:
    """Write the servers down, then hand them over: one that outlives its run must be known to ``down``."""
    _write_down(stack)
    for program in stack.programs:
        program.process.keep()


def _write_down(stack: Stack) -> None:
    state = {
        "schema": STATE_SCHEMA,
        "identity": identity(stack.config, stack.model),
        "config": asdict(stack.config),
        "workload": asdict(stack.workload) if stack.workload else None,
        "programs": [program.state() for program in stack.programs],
    }
    try:
        write_atomically(state_file(), json.dumps(state, indent=1))
    except OSError as error:
        raise StackError(
            f"the stack cannot be kept, because its state file cannot be written: {error.strerror}.\n"
            f"  checked  {state_file()}\n"
            f"To fix: make room there, or set LMCACHE_TUTORIAL_CACHE to another folder"
        ) from error


def _keep_or_close(stack: Stack) -> None:
    """Keep a stack that has just been started; where that fails, stop its servers and let go of the lock."""
    try:
        stack.on_restart = _keep
        _keep(stack)
        stack.kept = True
    except BaseException:
        stack.close()
        raise


def _reuse(
    run: RunConfig, model: Model, servers: dict[str, Server], lease: IO[str], progress: Progress
) -> Stack:
    state = read_state()
    assert state  # servers were found in it
    if not _whole(servers, run.stack) or state.identity != identity(run.stack, model):
        what = _mismatch(state, servers, run.stack)
        raise StackError(f"a kept stack is running, but it {what}.\n  checked  {state_file()}\n{FIX_DOWN}")
    stack = resume(run.stack, model, state.programs, servers, progress)
    progress(f"stack: reusing the kept stack at {stack.url}")
    stack.on_restart, stack.lease, stack.kept = _keep, lease, True
    if not all(program.answers() for program in stack.programs):
        raise StackError(f"the kept stack runs but does not answer.\n  checked  {stack.url}\n{FIX_DOWN}")
    if any(
        one.cache is None and own.cache is not None
        for one, own in zip(stack.engines, run.stack.engines, strict=True)
    ):
        restart_engine(stack)  # a run was cut off in a control without LMCache
    check_statements(stack, FIX_DOWN)
    stack.workload = state.workload
    return stack


def _whole(servers: Mapping[str, Server], config: StackConfig) -> bool:
    return {name for name, _ in named(config)} <= set(servers)


def _mismatch(state: KeptState, servers: dict[str, Server], config: StackConfig) -> str:
    if not _whole(servers, config):
        return f"is not whole (only {', '.join(servers)} runs)"
    changed = [
        name
        for name, value in json.loads(json.dumps(asdict(config))).items()
        if state.config.get(name) != value
    ]
    return (
        f"was started with another {', '.join(changed)}" if changed else "has other packages or another model"
    )
