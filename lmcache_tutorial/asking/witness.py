"""Who tells what served a call: the counters of servers that nobody else uses, or the answer alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ..quantities.records import Call, TokenSources
from ..quantities.statistics import total
from ..servers.counters import Snapshot
from ..stack.found import FoundStack
from ..stack.stack import Stack
from .token_sources import sources_by_look_up, token_sources


class Witness(Protocol):
    """Is told when a window begins, of each call in it, and when it ends."""

    def placed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what is sent for a request; the very same where nothing is added."""

    def begin(self) -> None:
        """Begin a window."""

    def saw(self, call: Call) -> Call:
        """Say of a call that had the engine to itself who served it."""

    def window(self, calls: Sequence[Call]) -> TokenSources:
        """End the window: wait until nothing of it is under way, and say who served all its prompts."""


def witness_of(stack: Stack) -> Witness:
    """Return what tells of calls on a stack."""
    return Answers(stack) if isinstance(stack, FoundStack) else Counters(stack)


class Counters:
    """The counters of a stack's servers, before and after: exact, for nobody else asks them."""

    def __init__(self, stack: Stack) -> None:
        """Read the counters of ``stack``."""
        self._stack = stack
        self._before: Snapshot | None = None
        self._mark: Snapshot | None = None

    def placed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add nothing."""
        return body

    def begin(self) -> None:
        """Read the counters now, so that no request has to wait for that."""
        self._before = self._mark = self._stack.snapshot()

    def saw(self, call: Call) -> Call:
        """Wait until a call is counted; add its tokens, its engine and the engine's own TTFT.

        Raises:
            CountersError: it was not counted, or the meters disagree.
        """
        assert self._mark is not None
        before, self._mark = self._mark, self._stack.wait_counted(self._mark, [call.prompt_tokens])
        worked = [
            engine.name
            for engine, then, now in zip(self._stack.engines, before.engines, self._mark.engines, strict=True)
            if now.prompt > then.prompt
        ]
        return replace(
            call,
            engine=" and ".join(worked),
            tokens=token_sources(before, self._mark, cached_tokens=call.cached_tokens),
            engine_ttft_s=self._mark.ttft_sum_s - before.ttft_sum_s,
        )

    def window(self, calls: Sequence[Call]) -> TokenSources:
        """Wait until all is counted and stored; split the window by the counters.

        Raises:
            CountersError: it was not, or the meters disagree.
        """
        assert self._before is not None
        parallel = any(call.tokens is None for call in calls)
        after = self._stack.settle(self._before, [call.prompt_tokens for call in calls], parallel=parallel)
        cached = sum(call.cached_tokens for call in calls)
        return token_sources(self._before, after, cached_tokens=cached, calls=len(calls))


class Answers:
    """What each answer says of its own request: others use the engine, and its counters count them too.

    An answer tells how many tokens were reused and not who kept them. LMCache's request span tells it where
    LMCache found less. After the engine's own cache was emptied the next request's come from LMCache: nobody
    else can have asked for its prompt since.
    """

    def __init__(self, stack: FoundStack) -> None:
        """Believe the answers of ``stack``."""
        self._stack = stack

    def placed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put the request into the run's namespace."""
        return self._stack.place(body)

    def begin(self) -> None:
        """Read nothing."""

    def saw(self, call: Call) -> Call:
        """Add its tokens."""
        tokens = self._split(call, engine_is_empty=self._stack.engine_is_empty)
        self._stack.engine_is_empty = False
        return replace(call, tokens=tokens)

    def window(self, calls: Sequence[Call]) -> TokenSources:
        """Give LMCache the time to store; add up what the answers say."""
        self._stack.rest()
        return total(call.tokens or self._split(call) for call in calls)

    def _split(self, call: Call, *, engine_is_empty: bool = False) -> TokenSources:
        found = self._stack.looked_up(call.id)
        return sources_by_look_up(
            call.prompt_tokens, call.cached_tokens, found, engine_is_empty=engine_is_empty
        )
