"""A stack of a lesson's own, and how it is asked about documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from ..asking.ask import Asker
from ..asking.direct import ask_engine
from ..asking.replies import Question
from ..quantities.records import TokenSources, Turn
from ..quantities.statistics import total
from ..servers.file_tier import FileTier
from ..servers.listener import listen
from ..settings.topology import StackConfig
from ..stack.fresh import start_fresh
from ..stack.restart import stopped
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

    def heard(self, manuals: Sequence[str], question: str) -> list[tuple[dict[str, int], Turn]]:
        """Ask one engine after the other about a manual, and then the router; listen to their KV events.

        Returns:
            Of every request to the router what each engine had announced before that it holds of the prompt
            [tokens], by the engine's name.
        """
        found = []
        with listen(self.stack.engines) as events:
            for manual, engine in zip(manuals, cycle(self.stack.engines), strict=False):
                ask_engine(self.stack, engine, Question(self.reader.messages(manual, question), salt=""))
                events.settle()
                held = events.tokens(self.prompt(manual, question))
                found.append((held, self(manual, question)))
        return found

    def file_tier(self, place: int) -> FileTier:
        """Return a tier of files, by its place among the stack's tiers."""
        tier = self.stack.tiers[place]
        assert isinstance(tier, FileTier)
        return tier

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


class Opener:
    """Opens stacks of a lesson's own, beside the session's, and closes them all.

    On a GPU, whose memory the session's engine has taken, the session's stack is stopped meanwhile.
    """

    def __init__(self, stack: Stack, traces: Traces, logs: Path) -> None:
        """Open beside ``stack``, with logs in a folder of the lesson's own."""
        self._stack, self._traces, self._logs = stack, traces, logs
        self._opened = ExitStack()

    def __call__(self, config: StackConfig) -> Beside:
        """Start a stack and warm it up.

        Raises:
            StackError: the machine lacks something for it, or a server states something else than configured.
            ServerError: a server did not start.
        """
        if config.profile == "gpu" and self._stack.engine.process.alive():
            self._opened.enter_context(stopped(self._stack))
        beside = Beside.of(
            start_fresh(config, self._stack.model, self._logs, self._stack.progress), self._traces
        )
        self._opened.callback(beside.close)
        beside.stack.warm_up()
        return beside

    def close(self) -> None:
        """End the stacks, and start the session's again where it was stopped."""
        self._opened.close()
