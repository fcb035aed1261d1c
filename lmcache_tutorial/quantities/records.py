"""What a run produces: frozen records without logic. Seconds and tokens; *not measured* is ``None``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TokenSources:
    """Who served the prompt tokens of one window of calls; the parts sum to the prompt.

    ``lmcache_l1`` came from LMCache's memory, ``lmcache_l2`` from its second tier (files, Valkey). ``untold``
    was reused, and nobody tells by whom: a stack that others use too has no counters that could.
    """

    computed: int
    engine: int
    lmcache_l1: int
    lmcache_l2: int
    untold: int = 0

    @property
    def lmcache(self) -> int:
        """Tokens that are known to have come through the KV connector, from any tier."""
        return self.lmcache_l1 + self.lmcache_l2

    @property
    def reused(self) -> int:
        """Tokens that were not prefilled again, whoever kept them."""
        return self.engine + self.lmcache + self.untold

    @property
    def prompt(self) -> int:
        """All prompt tokens of the window."""
        return self.computed + self.reused


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What LMCache found of one prompt: in all, in its memory, in a tier behind it [tokens].

    It looks up the whole prompt, also what the engine holds itself.
    """

    hit: int
    l1: int
    l2: int


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the model, as the client and the engine saw it.

    ``ttft_s``: request sent to first chunk with content, client clock. ``engine_ttft_s``: the engine's own,
    from its histogram around this call; ``None`` where other calls shared the window. ``queue_s`` and
    ``prefill_s`` are the engine's per-request figures.
    ``tokens`` is ``None`` for calls that ran in parallel: only their window has a split. ``request`` is the
    body that was sent: model, messages, tools. ``generated`` has the answer's token ids where the request
    asked for them (``return_token_ids``). ``engine`` names the engine of the stack that computed it, empty
    where calls ran in parallel. ``lead`` is by how much the first token was likelier than the next one
    [nats]; ``None`` where the request did not ask for two (``top_logprobs``).
    ``waited_s``: how long threads of this process and of the servers that it talks to stood ready to run and
    had no processor, from the start of its window, or from when the call before was counted, to the end of
    its answer; ``None`` where calls ran in parallel, or the kernel does not count it. ``id`` is the answer's.
    """

    node: str
    prompt_tokens: int
    cached_tokens: int
    ttft_s: float
    engine_ttft_s: float | None
    queue_s: float | None
    prefill_s: float | None
    text: str
    logprobs: tuple[float, ...]
    tokens: TokenSources | None
    request: dict[str, Any] = field(repr=False, default_factory=dict)
    generated: tuple[int, ...] = field(repr=False, default=())
    engine: str = ""
    lead: float | None = None
    waited_s: float | None = None
    id: str = ""

    def same_answer(self, other: Call) -> bool:
        """Tell whether two answers have the same text with the same log-probabilities, bit for bit.

        Raises:
            ValueError: one of them was asked for without log-probabilities.
        """
        if not (self.logprobs and other.logprobs):
            raise ValueError("answers are compared by their log-probabilities, and one of them has none")
        return (self.text, self.logprobs) == (other.text, other.logprobs)


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of a graph: its calls, the tokens of its whole window, its final state and its trace."""

    trace_id: str
    calls: tuple[Call, ...]
    tokens: TokenSources
    state: dict[str, Any] = field(repr=False)

    @property
    def call(self) -> Call:
        """The only call of a turn that made exactly one."""
        (only,) = self.calls
        return only


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def less(self, amount: float) -> Interval:
        """Shift it down.

        >>> Interval(3.0, 2.0, 4.0).less(1.0)
        Interval(value=2.0, low=1.0, high=3.0)
        """
        return Interval(self.value - amount, self.low - amount, self.high - amount)


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One span of a Langfuse trace; times in seconds since the trace began.

    ``ttft_s``, ``prompt_tokens`` and ``cached_tokens`` are ``None`` on spans that are no generation.
    ``node`` is the LangGraph node that the span belongs to, empty outside any node.
    """

    span_id: str
    parent_id: str
    name: str
    kind: str
    node: str
    start_s: float
    duration_s: float
    ttft_s: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
