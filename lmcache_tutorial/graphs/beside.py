"""A stack of a lesson's own, and how it is asked about documents."""

from __future__ import annotations

from dataclasses import dataclass

from ..asking.ask import Asker
from ..quantities.records import Turn
from ..stack.stack import Stack
from ..traces.record import Traces
from .reader import Reader, build_reader


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

    def __call__(self, manual: str, question: str) -> Turn:
        """Ask one question about one manual."""
        return self.ask(self.reader.graph, {"manual": manual, "question": question})

    def prompt(self, manual: str, question: str) -> list[int]:
        """Return the token ids of such a prompt."""
        return self.stack.tokenize(self.reader.messages(manual, question))

    def close(self) -> None:
        """Let go of the connections, and end the servers."""
        try:
            self.ask.close()
        finally:
            self.stack.close()
