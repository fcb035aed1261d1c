"""One of a stack's engines, asked directly, past a router: the answer, and who served its prompt."""

from __future__ import annotations

from dataclasses import replace

from ..quantities.records import Call
from ..servers.vllm import Engine
from ..stack.stack import Stack
from .replies import Question, ask_bare
from .token_sources import token_sources


def ask_engine(stack: Stack, engine: Engine, question: Question) -> Call:
    """Ask one engine, and wait until all is counted and stored.

    Raises:
        AssertionError: no answer came.
        CountersError: the servers' counters disagree.
    """
    before = stack.snapshot()
    call = ask_bare(engine.url, stack.model.name, question).answer
    after = stack.settle(before, [call.prompt_tokens])
    tokens = token_sources(before, after, cached_tokens=call.cached_tokens)
    return replace(call, tokens=tokens, engine=engine.name)
