"""Prompts of several lengths: computed, and then loaded from what LMCache keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..asking.replies import InFlight, Question
from ..prompts.documents import fresh
from ..quantities.break_even import Line
from ..quantities.records import Interval, Turn
from ..quantities.statistics import ratio_of_medians, stays_above
from .beside import Beside


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
    """Cold prompts that LMCache stored, and others that it was asked not to; one of each a round.

    Attributes:
        cold: way -> the first question about each copy.
        again: way -> the same question about the last copy, once the engine had forgotten it.
    """

    cold: dict[str, list[Turn]] = field(default_factory=lambda: {"not stored": [], "stored": []})
    again: dict[str, Turn] = field(default_factory=dict)

    @property
    def arms(self) -> dict[str, list[float]]:
        """TTFT of both, one a round [s]."""
        return {way: [turn.call.ttft_s for turn in turns] for way, turns in self.cold.items()}

    @property
    def ratios(self) -> list[float]:
        """How many times as long the stored prompt took, one a round."""
        return [stored / not_stored for not_stored, stored in zip(*self.arms.values(), strict=True)]

    @property
    def kept(self) -> dict[str, int]:
        """How much of the last copy came back from LMCache [tokens]."""
        return {way: turn.tokens.lmcache for way, turn in self.again.items()}


def ask_storing(
    lab: Beside, prompt: tuple[str, str], wish: Mapping[str, Any], rounds: Iterable[int], most: float
) -> Storing:
    """Ask about two new copies of a text a round, one with a wish to LMCache; the order alternates.

    LMCache is emptied before each round, so that each begins alike. Where it was not, stored prompts of 520
    tokens once took 1.19 times as long, not 1.03; why is not known, and it is not the first write to its
    memory, which costs no more (1.02 by a bare client, 1.01 and 1.04 when the memory was written again).

    Args:
        lab: the stack, with an asker.
        prompt: the text, and what is asked about it.
        wish: what one of the two requests carries, so that it is not stored.
        rounds: at most so many; they end when a sequential test can answer.
        most: whether the median of the rounds' ratios lies above this is what that test is asked.
    """
    text, question = prompt
    asked, options = Storing(), {"not stored": {"extra_body": dict(wish)}, "stored": {}}
    copies: dict[str, str] = {}
    for number in rounds:
        lab.stack.empty_lmcache()
        for way in options if number % 2 else reversed(options):
            copies[way] = fresh(text)
            asked.cold[way].append(lab(copies[way], question, **options[way]))
        if stays_above(asked.ratios, most) is not None:
            break
    lab.stack.empty_engine_cache()
    for way, copy in copies.items():
        asked.again[way] = lab(copy, question)
    return asked


def ask_together(
    lab: Beside, text: str, question: str, rounds: Iterable[int], *, at_once: int = 4
) -> dict[str, list[float]]:
    """Ask about several new copies of a text at the same time; then once more, from behind LMCache's memory.

    Returns:
        ``computed`` and ``loaded``: how long it took until all had an answer, one a round [s].

    Raises:
        AssertionError: a request had no answer, or was not served as its name says.
    """
    took: dict[str, list[float]] = {"computed": [], "loaded": []}
    for _ in rounds:
        asked = [Question(lab.reader.messages(fresh(text), question)) for _ in range(at_once)]
        for way, times in took.items():
            before = lab.stack.snapshot()
            replies = InFlight(lab.stack, asked).replies()
            prompts = [reply.answer.prompt_tokens for reply in replies]
            lab.stack.settle(before, prompts, parallel=True)
            chunk = lab.stack.chunk_tokens
            reused = [reply.answer.cached_tokens // chunk for reply in replies]
            whole = [prompt // chunk if way == "loaded" else 0 for prompt in prompts]
            assert reused == whole, f"{way}: {reused} chunks were reused, where {whole} were expected"
            times.append(max(reply.took_s for reply in replies))
            lab.stack.empty_lmcache()
            lab.stack.empty_engine_cache()
    return took
