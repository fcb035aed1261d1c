"""Servers that are stopped and started again on the same ports; those that go on keep what they hold."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import httpx

from ..servers.lmcache import Cache
from ..servers.process import ServerError, wait_until_ready
from ..servers.program import Program
from ..servers.valkey import Valkey
from ..servers.vllm import Engine
from ..servers.vllm_router import Router
from ..settings.topology import CacheConfig, RouterConfig
from .stack import Stack

ANSWER_LIMIT_S = 60.0  # of a prompt of one chunk, on a machine that is busy with others
RETURN_LIMIT_S = 30.0  # an engine's heartbeat comes every 2 s, and may have to fail once before
RELEASE_LIMIT_S = 60.0  # LMCache gives up a silent engine after 30 s, and looks every few seconds


def restart_engine(stack: Stack, *, lmcache: bool = True) -> None:
    """Stop the only engine and start it again; LMCache's server goes on.

    Args:
        stack: one with a single engine.
        lmcache: start it with LMCache's connector, if it has one; ``False`` is the control.

    Raises:
        ServerError: it is not ours, did not stop or did not become ready.
    """
    place = stack.config.engine.cache if lmcache else None
    cache = None if place is None else stack.caches[place]
    _again(stack, stack.engine, cache, "" if lmcache else " without LMCache")


def _again(stack: Stack, engine: Engine, cache: Cache | None, how: str = "") -> None:
    """Stop one of the engines and start it again, with its connector to a cache or without; say how."""
    engine.process.stop()
    for held in stack.caches:
        wait_released(stack, held)
    engine.restart(cache)
    _wait_answers(stack, [engine], how)
    stack.warm_up()
    stack.on_restart(stack)


@contextmanager
def without_lmcache(stack: Stack) -> Iterator[None]:
    """Run an engine without LMCache for a ``with`` block, then one with it; after an interrupt none."""
    restart_engine(stack, lmcache=False)
    try:
        yield
    except Exception:
        restart_engine(stack)
        raise
    restart_engine(stack)


def restart_caches(stack: Stack, own: CacheConfig, *, answer_limit_s: float = ANSWER_LIMIT_S) -> None:
    """Stop the caches and start them again, empty; the engines and the tiers go on.

    Args:
        stack: one whose engines are connected to caches.
        own: what every cache is configured with from now on.
        answer_limit_s: how long an engine's answer may take [s].

    Raises:
        httpx.TimeoutException: an engine gave no answer within its limit.
        ServerError: one is not ours, did not stop or did not become ready, or an engine did not come back.
    """
    stack.config = replace(stack.config, caches=(own,) * len(stack.caches))
    for cache in stack.caches:
        cache.process.stop()
        cache.restart(own)
    _wait_answers(stack, stack.caches)
    for engine in stack.engines:
        if engine.cache:
            wait_connected(stack, engine, engine.cache, answer_limit_s)
    stack.empty_lmcache()
    stack.on_restart(stack)


def restart_router(stack: Stack, own: RouterConfig) -> None:
    """Stop the router and start it again with another policy; it has forgotten all that it knew.

    Raises:
        ServerError: the stack has no router, it did not stop or did not become ready.
    """
    router = stack.router
    if not isinstance(router, Router):
        raise ServerError("this stack has no router to restart: its engines are asked directly.")
    stack.config = replace(stack.config, router=own)
    router.process.stop()
    router.restart(own)
    _wait_answers(stack, [router])
    stack.on_restart(stack)


def reconnect(stack: Stack, engine: int, cache: int | None) -> None:
    """Start one of the engines again, with its connector to another cache of the stack, or to none.

    Args:
        stack: one whose engines are ours.
        engine: the place of the engine among the stack's engines.
        cache: the place of the cache among its caches; ``None`` is no connector.

    Raises:
        ServerError: it is not ours, did not stop or did not become ready.
    """
    engines = list(stack.config.engines)
    engines[engine] = replace(engines[engine], cache=cache)
    stack.config = replace(stack.config, engines=tuple(engines))
    _again(stack, stack.engines[engine], None if cache is None else stack.caches[cache])
    if stack.config.router:  # it would find out by itself that the engine is back, with its next checks
        restart_router(stack, stack.config.router)


def spread(stack: Stack, gpus: int) -> None:
    """Stop the only engine and start it again over another number of GPUs; LMCache keeps what it holds.

    Args:
        stack: one with a single engine, on a machine with so many GPUs.
        gpus: over how many it is spread from now on, 1 or more.

    Raises:
        ServerError: it is not ours, did not stop or did not become ready.
    """
    engine = stack.engine
    stack.config = stack.config.with_engines(tensor_parallel=gpus)
    assert engine.plan
    engine.plan = replace(engine.plan, config=stack.config, own=stack.config.engine)
    _again(stack, engine, engine.cache, f" over {gpus} GPUs" if gpus > 1 else " on one GPU")


def start_again(stack: Stack, program: Program) -> None:
    """Start a program of a stack that has ended, as it was, and wait until it answers.

    Raises:
        ServerError: it is none of ours, or did not become ready; or it is a router, and an engine has ended.
    """
    dead = [engine for engine in stack.engines if engine.server and not engine.process.alive()]
    if isinstance(program, Engine):
        program.restart(program.cache)
    elif isinstance(program, Router) and dead:  # it would wait for it
        raise ServerError(f"{dead[0].name} has ended; its log is {dead[0].process.record.log}")
    elif isinstance(program, Router) and stack.config.router:
        program.restart(stack.config.router)
    elif isinstance(program, Cache | Valkey):
        program.restart()
    _wait_answers(stack, [program])
    stack.on_restart(stack)


def restart_all(stack: Stack) -> None:
    """Stop the engines and the caches and start them again; only the tiers keep what they hold.

    Raises:
        ServerError: one is not ours, did not stop or did not become ready.
    """
    for engine in stack.engines:
        engine.process.stop()
    for cache, own in zip(stack.caches, stack.config.caches, strict=True):
        cache.process.stop()
        cache.restart(own)
    for engine, own_engine in zip(stack.engines, stack.config.engines, strict=True):
        engine.restart(None if own_engine.cache is None else stack.caches[own_engine.cache])
    behind_router = [stack.router] if stack.router else []
    _wait_answers(stack, [*stack.caches, *stack.engines, *behind_router])
    stack.warm_up()
    stack.on_restart(stack)


@contextmanager
def stopped(stack: Stack) -> Iterator[None]:
    """Stop the engines and the caches for a ``with`` block, to make room; then start them again, empty."""
    stack.progress(f"stack: {' and '.join(one.name for one in stack.programs)} stopped, to make room")
    for program in (*stack.engines, *stack.caches):
        program.process.stop()
    try:
        yield
    finally:
        restart_all(stack)


def wait_released(stack: Stack, cache: Cache) -> None:
    """Wait until a cache maps the memory of no more GPU engines than are alive and connected to it.

    Raises:
        ServerError: it still does after a minute, or does not answer.
    """
    deadline = time.monotonic() + RELEASE_LIMIT_S
    try:
        living = [one for one in stack.engines if one.cache is cache and one.server and one.server.alive()]
        while cache.mapped_engines > len(living) * stack.config.tensor_parallel:
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{cache.name} held a dead engine's memory for more than {RELEASE_LIMIT_S:g} s."
                )
            time.sleep(0.25)
    except httpx.HTTPError as error:
        raise ServerError(
            f"{cache.name} at {cache.url} does not answer: {type(error).__name__}.\n"
            f"To fix: look into {', '.join(stack.logs)}"
        ) from None


def _wait_answers(stack: Stack, restarted: Sequence[Program], how: str = "") -> None:
    """Wait until programs that were started again answer; say so."""
    wait_until_ready(
        [(one.process, one.answers) for one in restarted],
        timeout_s=stack.config.ready_timeout_s,
        ready=lambda server, took: stack.progress(
            f"stack: {server.record.name} restarted{how}, ready after {took:.0f} s"
        ),
    )


def wait_connected(
    stack: Stack, engine: Engine, cache: Cache, answer_limit_s: float = ANSWER_LIMIT_S
) -> None:
    """Ask an engine new prompts of a chunk until its cache has looked one up and stored it.

    Raises:
        httpx.TimeoutException: it gave no answer within the limit.
        ServerError: it still did not after 30 s.
    """
    deadline = time.monotonic() + RETURN_LIMIT_S
    while time.monotonic() < deadline:
        before = cache.counters()
        probe = stack.fresh_prompt(stack.chunk_tokens + 1)
        engine.complete(probe, limit_s=answer_limit_s).raise_for_status()
        patience = time.monotonic() + 1
        while time.monotonic() < patience:
            now = cache.counters()
            if now.lookup_requested > before.lookup_requested and now.stored_chunks > before.stored_chunks:
                return
            time.sleep(0.05)
    raise ServerError(
        f"{engine.name} did not come back to {cache.name} within {RETURN_LIMIT_S:g} s of its restart.\n"
        f"To fix: look into {', '.join(stack.logs)}"
    )
