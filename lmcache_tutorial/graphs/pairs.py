"""Two requests one after the other, laid out by segments, predicted and asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ..asking.ask import Asker
from ..asking.cache_state import Start
from ..prompts.layout import Layout, Segment, lay_out, predicted_reuse, render
from ..quantities.predict import engine_reusable_tokens, lmcache_reusable_tokens
from ..quantities.records import Turn


@dataclass(frozen=True)
class Pair:
    """Two requests: how they are laid out, what the second was to reuse [tokens], what both did."""

    layouts: tuple[Layout, Layout]
    predicted: int
    first: Turn
    second: Turn

    @property
    def static_hit_rate(self) -> float:
        """Reused static tokens of the second request over its static tokens, 0 to 1."""
        last = self.layouts[1]
        return last.tokens_before(self.second.tokens.reused, "static") / last.tokens("static")

    @property
    def ttft_ratio(self) -> float:
        """TTFT of the second request over that of the first."""
        return self.second.call.ttft_s / self.first.call.ttft_s


def predicted(asked: Sequence[Pair]) -> list[int]:
    """List what the second requests were to reuse: the shared prefix in whole blocks, or chunks [tokens]."""
    return [pair.predicted for pair in asked]


def reused(asked: Sequence[Pair]) -> list[int]:
    """List what the second requests reused, whoever kept it [tokens]."""
    return [pair.second.tokens.reused for pair in asked]


def ttft_s(asked: Sequence[Pair], order: Literal["first", "second"]) -> list[float]:
    """List the TTFT of the first requests, or of the second [s]."""
    return [getattr(pair, order).call.ttft_s for pair in asked]


class Pairs:
    """Sends lists of segments. Each rendering is checked against the server's own token ids."""

    def __init__(self, ask: Asker, sender: Any) -> None:
        self._ask, self._sender, self._stack = ask, sender, ask.stack
        self.engine = partial(engine_reusable_tokens, block=self._stack.block_tokens)
        self.both = self._stack.reuse

    def lmcache(self, shared: int, prompt: int) -> int:
        """Predict what LMCache serves to an engine that holds nothing [tokens]."""
        return lmcache_reusable_tokens(shared, prompt, self._stack.chunk_tokens)

    def send(self, segments: Sequence[Segment], start: Start) -> tuple[Layout, Turn]:
        """Ask one request; return its layout and its turn."""
        layout, request = lay_out(segments, self._stack.renderer), render(segments)
        server = self._stack.tokenize(request.messages, request.tools)
        assert list(layout.rendered.ids) == server, "our rendering is not the server's"
        state = {"messages": list(request.messages), "tools": list(request.tools)}
        return layout, self._ask(self._sender, state, start=start)

    def predicted_static_hit_rate(self, first: Sequence[Segment], second: Sequence[Segment]) -> float:
        """Predict the share of the second request's static tokens that is reused, 0 to 1; ask nothing."""
        one, two = (lay_out(segments, self._stack.renderer) for segments in (first, second))
        reused = predicted_reuse([one.rendered, two.rendered], self.both)[1]
        return two.tokens_before(reused, "static") / two.tokens("static")

    def ask(self, first: Sequence[Segment], second: Sequence[Segment]) -> Pair:
        """Ask a cold request and then another; predict what the other reuses."""
        (one, cold), (two, warm) = self.send(first, "cold"), self.send(second, "as it is")
        return Pair((one, two), predicted_reuse([one.rendered, two.rendered], self.both)[1], cold, warm)
