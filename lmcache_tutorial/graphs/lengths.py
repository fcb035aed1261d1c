"""Prompts of several lengths: computed, and then loaded from what LMCache keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..prompts.documents import CorpusError, fresh
from ..quantities.break_even import Line
from ..quantities.records import Interval, Turn
from ..quantities.statistics import ratio_of_medians
from ..stack.stack import Stack
from .beside import Beside
from .reader import Reader

BEYOND_TOKENS = 8  # of a cut prompt, beyond its last chunk: a nonce may be so much shorter in another copy
STEP = 16  # characters


@dataclass(frozen=True)
class Lengths:
    """Turns by the name of their prompt's length, one a round: prompts that were new, and then kept."""

    computed: dict[str, list[Turn]] = field(default_factory=lambda: defaultdict(list))
    loaded: dict[str, list[Turn]] = field(default_factory=lambda: defaultdict(list))

    @property
    def ways(self) -> dict[str, dict[str, list[Turn]]]:
        """Both kinds, by name."""
        return {"computed": self.computed, "loaded": self.loaded}

    def prompt_tokens(self, name: str) -> int:
        """Return how long a prompt of this name is, in the first round [tokens]."""
        return self.computed[name][0].tokens.prompt

    def ttft_s(self, name: str) -> dict[str, list[float]]:
        """Return the TTFT of both ways, one a round [s]."""
        return {way: [turn.call.ttft_s for turn in turns[name]] for way, turns in self.ways.items()}

    def gain(self, name: str) -> Interval:
        """Compute how many times as long computing takes as loading, over the rounds of a length."""
        times = self.ttft_s(name)
        return ratio_of_medians(times["computed"], times["loaded"])

    def line(self, way: str, names: Iterable[str]) -> Line:
        """Draw the line of a way's TTFT through some of the lengths."""
        return Line.through({self.prompt_tokens(name): self.ttft_s(name)[way] for name in names})

    def rows(self) -> list[tuple[int, float, str]]:
        """Return every turn as a row of a chart: prompt [tokens], TTFT [s], way."""
        return [
            (turn.tokens.prompt, turn.call.ttft_s, way)
            for way, named in self.ways.items()
            for turns in named.values()
            for turn in turns
        ]


def ask_lengths(
    lab: Beside, texts: Mapping[str, str], question: str, rounds: Iterable[int], *, memory: bool = True
) -> Lengths:
    """Ask about new copies of texts; then once more, when the engine's own cache holds nothing of them.

    Args:
        lab: the stack, with an asker.
        texts: the name of a length -> the text.
        question: what is asked.
        rounds: of each, every text is asked about both ways.
        memory: whether LMCache's memory still holds them, or only what stands behind it.
    """
    asked = Lengths()
    for _ in rounds:
        copies = {name: fresh(text) for name, text in texts.items()}
        for name, copy in copies.items():
            asked.computed[name].append(lab(copy, question))
        if not memory:
            lab.stack.empty_lmcache()
        for name, copy in copies.items():
            lab.stack.empty_engine_cache()
            asked.loaded[name].append(lab(copy, question))
    return asked


@dataclass(frozen=True)
class Storing:
    """Cold prompts that LMCache stored, and others that it was asked not to; one of each a round."""

    without: list[Turn] = field(default_factory=list)
    stored: list[Turn] = field(default_factory=list)

    @property
    def arms(self) -> dict[str, list[float]]:
        """TTFT of both, one a round [s]."""
        both = {"not stored": self.without, "stored": self.stored}
        return {arm: [turn.call.ttft_s for turn in turns] for arm, turns in both.items()}

    def ask(self, lab: Beside, text: str, question: str, wish: Mapping[str, Any]) -> None:
        """Ask about two new copies of a text, one of them with a wish to LMCache; the order alternates.

        Both begin when the engine is idle: after a request that is not stored, more time passes until it is
        known that there is nothing to wait for.
        """
        ways = [(self.without, {"extra_body": dict(wish)}), (self.stored, {})]
        for turns, options in ways if len(self.stored) % 2 else reversed(ways):
            turns.append(lab.when_idle(fresh(text), question, **options))


def cut_to_chunks(stack: Stack, text: str, question: str, chunks: float) -> str:
    """Cut a text so that its prompt has so many chunks, and a few tokens more.

    Raises:
        CorpusError: the text is too short for that.
    """
    wanted = int(chunks * stack.chunk_tokens) + BEYOND_TOKENS
    length = wanted
    while len(stack.tokenize(Reader.messages(fresh(text[:length]), question))) < wanted:
        if length > len(text):
            raise CorpusError(f"a text of {len(text):,} characters makes no prompt of {wanted:,} tokens.")
        length += STEP
    return text[:length]
