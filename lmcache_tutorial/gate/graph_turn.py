"""A reader's own graph, asked on a deployment: its calls by node, what they reused, and why not more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import httpx

from ..asking.awaited import AwaitedTransport
from ..asking.recorder import ModelCall, Recorder
from ..prompts.prompts_file import Prompt, kept
from ..quantities.formats import percent
from ..settings.shown import shown
from .deployment import Deployment
from .judge_group import parting
from .namespace import Namespace
from .prompt_group import Asked, Forerunner, forerunner, reusable

CALL_LIMIT_S = 300.0  # without a byte: an agent's longest prompt, cold, on a slow machine
NO_CALL = (
    "the graph made no request through kv_http_client, so nothing was measured.\n"
    "To fix: give it to the chat model, for example ChatOpenAI(http_client=kv_http_client, …), or where the "
    "graph is awaited http_async_client=kv_http_async_client"
)


class RecordedClient(httpx.Client):
    """The HTTP client for a chat model; what passes through it is noted, in a namespace of its own."""

    def __init__(self, deployment: Deployment, namespace: Namespace, *, mask: bool = False) -> None:
        """Open no connection yet; ``mask`` leaves the texts of prompts out of what failures say."""
        ids = {"return_token_ids": True} if deployment.engine_version else {}  # the next turn reuses them
        self.recorder = Recorder(lambda body: {**ids, **namespace.put(body)})
        super().__init__(transport=self.recorder, timeout=CALL_LIMIT_S)
        self.deployment, self.namespace, self.mask = deployment, namespace, mask
        self._ids: dict[int, list[int] | None] = {}
        self.asking = False

    def awaited(self) -> httpx.AsyncClient:
        """Return a client for a chat model that is awaited; what passes through it is noted here."""
        return httpx.AsyncClient(transport=AwaitedTransport(self.recorder), timeout=CALL_LIMIT_S)

    def prompt(self, place: int) -> Prompt:
        """Return what decides the prompt of a call, by its place among all calls."""
        call = self.recorder.calls[place]
        by = f" ({call.node})" if call.node else ""
        return Prompt(kept(call.request), 0, f"call {place + 1}{by}")

    def ids(self, place: int) -> list[int] | None:
        """Return the token ids of a call's prompt; ``None`` where the server does not tell them."""
        if place not in self._ids:
            self._ids[place] = self.deployment.tokens(self.prompt(place), self.namespace)
        return self._ids[place]

    def forerunner(self, place: int) -> Forerunner | None:
        """Find the earlier call that a call shares most tokens with; ``None`` where that is not known."""
        own, calls = self.ids(place), self.recorder.calls[:place]
        asked = [
            Asked(self.prompt(other), self.ids(other) or [], call.generated)
            for other, call in enumerate(calls)
        ]
        return forerunner(self.deployment, asked, self.prompt(place), own) if own and asked else None


@dataclass(frozen=True)
class PromptTokens:
    """Prompt tokens of some calls, and how many of them were not computed."""

    prompt: int
    reused: int


@dataclass(frozen=True)
class GraphTurn:
    """One run of a graph.

    Attributes:
        places: of its requests to the model among all of the test's, in the order in which they ended.
        state: what the graph returned.
    """

    places: tuple[int, ...]
    state: Any = field(repr=False)
    client: RecordedClient = field(repr=False)

    def of(self, node: str) -> GraphTurn:
        """Return the calls of one node.

        Raises:
            AssertionError: the node made none.
        """
        found = tuple(place for place in self.places if self.client.recorder.calls[place].node == node)
        nodes = ", ".join(dict.fromkeys(call.node or "(outside any node)" for call in self.calls))
        assert found, f"no call came from the node {node!r}; calls came from: {nodes}"
        return replace(self, places=found)

    @property
    def calls(self) -> tuple[ModelCall, ...]:
        """Its requests to the model."""
        return tuple(self.client.recorder.calls[place] for place in self.places)

    @property
    def nodes(self) -> dict[str, tuple[ModelCall, ...]]:
        """The calls by the node that made them."""
        names = dict.fromkeys(call.node for call in self.calls)
        return {name: tuple(call for call in self.calls if call.node == name) for name in names}

    @property
    def tokens(self) -> PromptTokens:
        """The prompt tokens of all calls together.

        Raises:
            AssertionError: the server does not tell how many were not computed.
        """
        assert all(call.cached_tokens is not None and call.prompt_tokens for call in self.calls), (
            "the server does not say how many tokens were not computed, so nobody knows what was reused.\n"
            "To fix: start vLLM with --enable-prompt-tokens-details; let the chat model ask for usage "
            "(ChatOpenAI: stream_usage=True)"
        )
        prompt = sum(call.prompt_tokens or 0 for call in self.calls)
        return PromptTokens(prompt, sum(call.cached_tokens or 0 for call in self.calls))

    @property
    def hit_rate(self) -> float:
        """Reused tokens over prompt tokens of all calls."""
        return self.tokens.reused / self.tokens.prompt

    @property
    def ttft_s(self) -> float:
        """The TTFT of all calls together [s].

        Raises:
            AssertionError: an answer was not streamed.
        """
        times = [call.ttft_s for call in self.calls if call.ttft_s is not None]
        assert len(times) == len(self.calls), (
            "an answer was not streamed, so nobody knows when its first token came.\n"
            "To fix: ChatOpenAI(streaming=True, …)"
        )
        return sum(times)

    @property
    def predicted(self) -> tuple[int | None, ...]:
        """What each call reuses, in closed form [tokens]; ``None`` where the server does not tell enough."""
        forerunners = [self.client.forerunner(place) for place in self.places]
        deployment = self.client.deployment
        return tuple(reusable(deployment, one) if one else None for one in forerunners)

    def assert_hit_rate(self, *, above: float) -> None:
        """Hold the hit rate against a bar; the failure says where the worst call parts from an earlier one.

        Args:
            above: what the hit rate must exceed [per cent].

        Raises:
            AssertionError: it does not, or the server does not tell.
        """
        found, bar = self.hit_rate, above / 100
        if found > bar:
            return
        lost = [(call.prompt_tokens or 0) - (call.cached_tokens or 0) for call in self.calls]
        worst = lost.index(max(lost))
        call, place = self.calls[worst], self.places[worst]
        lines = [
            f"hit rate {percent(found)}, the bar is {percent(bar)}",
            f"most was computed for {call.node or 'a call outside any node'}: "
            f"{lost[worst]:,} of {call.prompt_tokens:,} tokens",
        ]
        if forerunner := self.client.forerunner(place):
            lines += parting(self.client.prompt(place), forerunner, mask=self.client.mask)
        raise AssertionError(shown("\n".join(lines)))


def ask_graph(
    client: RecordedClient, graph: Any, state: Any, config: Mapping[str, Any] | None = None
) -> GraphTurn:
    """Run a graph once.

    Args:
        client: what its chat model sends its requests through.
        graph: a compiled LangGraph graph, anything else with ``invoke``, or a function.
        state: its input.
        config: as ``invoke`` takes it, for example ``{"configurable": {"thread_id": "1"}}``.

    Raises:
        AssertionError: no request passed, or one was refused, or its answer could not be read, or another
            graph runs on the client at this moment.
    """
    with _Turn(client) as turn:
        if hasattr(graph, "invoke"):
            final = graph.invoke(state, config=dict(config)) if config else graph.invoke(state)
        else:
            final = graph(state)
    return turn.of(final)


async def await_graph(
    client: RecordedClient, graph: Any, state: Any, config: Mapping[str, Any] | None = None
) -> GraphTurn:
    """Run a graph once that has ``ainvoke``, or a coroutine function; all else as in :func:`ask_graph`."""
    with _Turn(client) as turn:
        if hasattr(graph, "ainvoke"):
            final = await (graph.ainvoke(state, config=dict(config)) if config else graph.ainvoke(state))
        else:
            final = await graph(state)
    return turn.of(final)


class _Turn:
    """What a client notes while one graph runs, and no other."""

    def __init__(self, client: RecordedClient) -> None:
        assert not client.asking, (
            "another run of a graph is under way on this client, and their calls could not be told apart.\n"
            "To fix: await one after the other"
        )
        self._client = client
        self._calls, self._errors = len(client.recorder.calls), len(client.recorder.errors)

    def __enter__(self) -> Self:
        self._client.asking = True
        return self

    def __exit__(self, *_: object) -> None:
        self._client.asking = False

    def of(self, final: Any) -> GraphTurn:
        """Return the turn, with what the graph returned."""
        told = self._client.recorder.errors[self._errors :]
        assert not told, f"a request of the graph had no answer that can be judged: {told[0]}"
        places = tuple(range(self._calls, len(self._client.recorder.calls)))
        assert places, NO_CALL
        return GraphTurn(places, final, self._client)
