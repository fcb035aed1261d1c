"""Of the requests before one, the likeliest forerunner: the one that it has most text in common with."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from dataclasses import dataclass

from .turns import Talk, Turn

REMEMBERED_CHARACTERS = 40_000_000  # of prompts that may still be compared with
COMPARED = 6  # candidates of which the common text is counted
MEMO_CHARACTERS = 20_000_000
SENTENCE = re.compile(r"(?<=[.!?;,]) |\n")
SENTENCE_CHARACTERS = 24  # what is shorter says little, and may stand anywhere


@dataclass(slots=True)
class Seen:
    """A request that was read: its turns, its prompt as text and tokens, where it was kept."""

    talk: Talk
    text: str
    ids: list[int]
    number: int = 0


class Forerunners:
    """Remembers requests by what they say, and finds the likeliest forerunner of another.

    A turn votes for the last request that has it; a turn that is new votes by its sentences, for the last
    request that has the turn in which a sentence stood. So the time does not grow with the number of requests
    remembered, and a session's own last request is found however many others came between.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._kept: OrderedDict[int, Seen] = OrderedDict()
        self._last: dict[Turn, int] = {}  # the number of the last request that has a turn
        self._within: dict[str, Turn] = {}  # the newest turn in which a sentence stands
        self._turns: dict[int, frozenset[Turn]] = {}
        self._characters = self._number = 0
        self._memo: dict[str, tuple[str, ...]] = {}
        self._memo_characters = 0

    def remember(self, seen: Seen) -> None:
        """Keep a request, and forget the oldest if there are too many."""
        self._number += 1
        seen.number = self._number
        self._kept[seen.number] = seen
        self._characters += len(seen.text)
        self._turns[seen.number] = frozenset(seen.talk.turns)
        for turn in seen.talk.turns:
            if turn not in self._last:
                for sentence in self.sentences(turn[1]):
                    self._within[sentence] = turn
            self._last[turn] = seen.number
        while self._characters > REMEMBERED_CHARACTERS and len(self._kept) > 1:
            number, oldest = self._kept.popitem(last=False)
            self._characters -= len(oldest.text)
            for turn in self._turns.pop(number):
                self._forget(turn, number)

    def find(self, talk: Talk) -> Seen | None:
        """Return the likeliest forerunner of a request; the last one if none has any text of it."""
        alike: Counter[Turn] = Counter()  # turns of others, and the characters in common with them
        for turn in talk.turns:
            if turn in self._last:
                alike[turn] += len(turn[1]) + 1
                continue
            for sentence in self.sentences(turn[1]):
                if sentence in self._within:
                    alike[self._within[sentence]] += len(sentence)
        votes: Counter[int] = Counter()
        for turn, characters in alike.items():
            votes[self._last[turn]] += characters
        candidates = [number for number, _ in votes.most_common(COMPARED)]
        if not candidates:
            return next(reversed(self._kept.values()), None)
        return self._kept[max(candidates, key=lambda number: (self._likeness(number, talk, alike), number))]

    def sentences(self, text: str) -> tuple[str, ...]:
        """Cut a text into its sentences; the short ones are left out."""
        found = self._memo.get(text)
        if found is None:
            found = tuple(s for s in SENTENCE.split(text) if len(s) >= SENTENCE_CHARACTERS)
            self._memo_characters += len(text)
            if self._memo_characters > MEMO_CHARACTERS:
                self._memo, self._memo_characters = {}, len(text)
            self._memo[text] = found
        return found

    def _likeness(self, number: int, talk: Talk, alike: Counter[Turn]) -> int:
        """Count the characters in common; tools that are alike in number count a little."""
        turns, tools = self._turns[number], self._kept[number].talk.tools
        common = sum(characters for turn, characters in alike.items() if turn in turns)
        return common + int(bool(talk.tools) and len(tools) == len(talk.tools))

    def _forget(self, turn: Turn, number: int) -> None:
        if self._last[turn] != number:
            return
        del self._last[turn]
        for sentence in self.sentences(turn[1]):
            if self._within.get(sentence) == turn:
                del self._within[sentence]
