"""A stack of a lesson's own, and how it is asked about documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..asking.ask import Asker
from ..quantities.records import TokenSources, Turn
from ..quantities.statistics import total
from ..settings.topology import StackConfig
from ..stack.stack import Stack
from ..traces.record import Traces
from .reader import Reader, build_reader


@dataclass(frozen=True)
class InTurn:
    """Documents that were asked about in turn, twice, and what keeping them took.

    ``memory_bytes`` is what LMCache's memory held at the end; ``tier_bytes`` is what the tiers behind it
    held at the beginning and after each question [bytes].
    """

    manuals: tuple[str, ...]
    first: tuple[Turn, ...]
    second: tuple[Turn, ...]
    memory_bytes: int
    tier_bytes: tuple[int, ...]

    @property
    def tokens(self) -> TokenSources:
        """Who served the second pass."""
        return total(turn.tokens for turn in self.second)


@dataclass(frozen=True)
class Beside:
    """A stack beside the session's, with an asker and a reader; answers have one token."""

    stack: Stack
    ask: Asker
    reader: Reader

    @classmethod
    def of(cls, stack: Stack, traces: Traces) -> Beside:
        """Build what asks a stack."""
        ask = Asker(stack, traces)
        return cls(stack, ask, build_reader(ask, answer_tokens=1))

    def __call__(self, manual: str, question: str, **options: Any) -> Turn:
        """Ask one question about one manual; the request carries ``extra_headers`` and ``extra_body``."""
        return self.ask(self.reader.graph, {"manual": manual, "question": question, "options": options})

    def in_turn(self, manuals: Sequence[str], question: str) -> InTurn:
        """Ask the same question about each manual, and then about each once more."""
        places = {place for cache in self.stack.config.caches for place in cache.tiers}
        behind = [self.stack.tiers[place] for place in sorted(places)]
        turns, held = [], [sum(tier.used_bytes for tier in behind)]
        for manual in (*manuals, *manuals):
            turns.append(self(manual, question))
            held.append(sum(tier.used_bytes for tier in behind))
        first, second = turns[: len(manuals)], turns[len(manuals) :]
        memory_bytes = sum(cache.memory_used_bytes for cache in self.stack.caches)
        return InTurn(tuple(manuals), tuple(first), tuple(second), memory_bytes, tuple(held))

    def prompt(self, manual: str, question: str) -> list[int]:
        """Return the token ids of such a prompt."""
        return self.stack.tokenize(self.reader.messages(manual, question))

    def close(self) -> None:
        """Let go of the connections, and end the servers."""
        try:
            self.ask.close()
        finally:
            self.stack.close()


OpenBeside = Callable[[StackConfig], Beside]
"""A configuration -> a stack that was started for it and warmed up."""
