"""Questions whose right answer is known, each asked in a namespace of its own: cold, and judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice
from typing import Any

from ..quantities.records import Call
from ..stack.stack import Stack
from .replies import Question, Reply, ask_bare

Prompt = Sequence[Mapping[str, Any]]
TOLERANCE = {"float32": 1e-3}  # of a log-probability [nats]: sums in another order move it by far less
COARSE_TOLERANCE = 0.15  # of 16-bit numbers; up to 0.06 was measured
WORDS, ACTS = ("What", "Why", "How", "When", "Who"), ("say", "mean", "do", "prove")
QUESTIONS = tuple(
    f"{word} does this text {act}?" for act in ACTS for word in WORDS
)  # of some of them it is sure
FLIGHT_TOKENS, FLIGHT_S = 48, 1.0  # of an answer that is to be under way when something fails
SURE = 2 * COARSE_TOLERANCE  # by how much the first token must lead the second one [nats]


class NotSureError(RuntimeError):
    """No prompt was found of which the model knows the answer well enough to judge others by it."""


@dataclass(frozen=True)
class KnownAnswers:
    """Prompts with the answer that each had when it was prefilled whole; ``tolerance`` is in nats."""

    stack: Stack
    right: Sequence[tuple[Prompt, Call]]
    tolerance: float

    @classmethod
    def of(cls, stack: Stack, candidates: Sequence[Prompt], wanted: int) -> KnownAnswers:
        """Ask prompts until the model is sure of so many answers.

        A first token that leads the next likely one by little would be another one after the smallest
        rounding, and say nothing about right and wrong.

        Raises:
            NotSureError: the candidates do not have as many.
        """
        sure: list[tuple[Prompt, Call]] = []
        for prompt in candidates:
            call = ask_bare(stack.url, stack.model.name, Question(prompt)).call
            if call and (call.lead or 0) > SURE:
                sure.append((prompt, call))
            if len(sure) == wanted:
                return cls(stack, sure, TOLERANCE.get(stack.config.dtype, COARSE_TOLERANCE))
        raise NotSureError(
            f"the model is sure of {len(sure)} of {len(candidates)} answers, and {wanted} are needed.\n"
            "To fix: give more candidates"
        )

    def questions(self, count: int) -> list[Question]:
        """Make questions that no cache knows: the prompts in turn, each in a new namespace."""
        return [Question(prompt) for prompt, _ in islice(cycle(self.right), count)]

    def ask(self, question: Question) -> Reply:
        """Ask one question where requests to the stack go."""
        return ask_bare(self.stack.url, self.stack.model.name, question)

    @cached_property
    def flight_tokens(self) -> int:
        """How many tokens make an answer that is under way for a second, at the speed that this stack has.

        They are no fewer than 48, and fit beside the prompt into the engine's context.

        Raises:
            AssertionError: no answer came.
        """
        (question,) = self.questions(1)
        before = self.stack.snapshot()
        reply = self.ask(replace(question, answer_tokens=FLIGHT_TOKENS))
        self.stack.settle(before, [reply.answer.prompt_tokens])
        token_s = (reply.took_s - reply.answer.ttft_s) / (FLIGHT_TOKENS - 1)
        room = min(one.context_tokens for one in self.stack.config.engines) - reply.answer.prompt_tokens
        return max(FLIGHT_TOKENS, min(math.ceil(FLIGHT_S / token_s), room))

    def keep(self, count: int) -> list[Question]:
        """Ask new questions and wait until they are stored; the engines' own caches are empty then."""
        kept = self.questions(count)
        for question in kept:
            before = self.stack.snapshot()
            self.stack.settle(before, [self.ask(question).answer.prompt_tokens])
        self.stack.empty_engine_cache()
        return kept

    def is_wrong(self, question: Question, reply: Reply) -> bool:
        """Tell whether an answer came, and it was not the right one."""
        (right,) = [call for prompt, call in self.right if prompt is question.messages]
        return reply.call is not None and not reply.agrees(right, self.tolerance)
