"""Run a LangGraph graph against a stack, and measure every request that it makes to the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from langchain_openai import ChatOpenAI
from langsmith import tracing_context
from pydantic import SecretStr

from ..quantities.records import Turn
from ..servers.counters import CountersError
from ..stack.stack import Stack
from ..traces.record import Traces
from .cache_state import Start, check_held
from .meter import Meter

CALL_LIMIT_S = 300.0


class Asker:
    """Runs graphs against one stack. Its chat models carry the meter; one call at a time has exact counts."""

    def __init__(self, stack: Stack, traces: Traces) -> None:
        """Measure on ``stack`` and leave a trace in ``traces`` for each turn."""
        self.stack, self.traces = stack, traces
        self._meter = Meter(stack)
        self._client = httpx.Client(transport=self._meter, auth=stack.client.auth, timeout=CALL_LIMIT_S)

    def chat_model(self, *, max_tokens: int, **options: Any) -> ChatOpenAI:
        """Build a greedy chat model on the stack's engine whose requests are measured.

        ``streaming`` and ``stream_usage`` are what brings TTFT and cached tokens into a trace.
        """
        return ChatOpenAI(
            model=self.stack.model.name,
            base_url=f"{self.stack.url}/v1",
            api_key=SecretStr(self.stack.api_key),
            streaming=True,
            stream_usage=True,
            temperature=0,
            max_tokens=max_tokens,
            max_retries=0,
            http_client=self._client,
            **options,
        )  # type: ignore[call-arg]

    def __call__(
        self, graph: Any, state: Mapping[str, Any], *, start: Start = "as it is", thread: str | None = None
    ) -> Turn:
        """Run a graph once and return its Turn.

        Args:
            graph: a compiled LangGraph graph whose nodes use :meth:`chat_model`.
            state: its input.
            start: what the caches hold of the first call's prompt. ``cold``: nothing. ``engine``: the
                engine's own prefix cache holds a part. ``lmcache``: the engine's cache is emptied first, so
                that what is reused comes from LMCache. The call proves it.
            thread: the conversation that a graph with a checkpointer goes on with.

        Raises:
            CacheStateError: the first call shows that the caches held something else.
            CountersError: the engine, ``usage``, LMCache and the trace disagree.
        """
        if start == "lmcache":
            self.stack.empty_engine_cache()
        self._meter.begin()
        trace_id, handler = self.traces.handler()
        with tracing_context(enabled=False):  # LangSmith, if the environment switches it on
            final = graph.invoke(
                state,
                config={
                    "callbacks": [handler],
                    "run_name": "turn",
                    "metadata": self.traces.metadata,
                    "configurable": {"thread_id": thread},
                },
            )
        calls = self._meter.finish()
        window = self._meter.window(calls)
        turn = Turn(trace_id, calls, window, dict(final))
        self._check_trace(turn)
        first = calls[0].tokens or window
        check_held(start, first, "the call")
        return turn

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _check_trace(self, turn: Turn) -> None:
        spans = [span for span in self.traces.of(turn) if span.kind == "generation"]
        traced = sorted((span.prompt_tokens, span.cached_tokens) for span in spans)
        counted = sorted((call.prompt_tokens, call.cached_tokens) for call in turn.calls)
        if traced != counted:
            raise CountersError(f"(prompt, cached) tokens: the trace says {traced}, usage says {counted}.")
