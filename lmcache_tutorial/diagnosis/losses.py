"""What a change costs: the part of a prompt behind the change that its forerunner has, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from .culprits import REORDERED, Place, common_suffix, difference
from .turns import Talk, Turn

Sentences = Callable[[str], Sequence[str]]
MOST_WORDS = 60  # characters around a turn; more is a text of the template's own
HISTORY = ("history_rewritten", "history_trimmed")


def common_behind(first: Talk, second: Talk, at: Place, kind: str, sentences: Sentences) -> int:
    """Count the characters behind the divergence that the forerunner has too: what a better place saves.

    Args:
        first: the forerunner.
        second: the request.
        at: where they part.
        kind: of change.
        sentences: cuts a text into sentences.
    """
    if kind in HISTORY and at.segment != "tools":
        return _kept_history(first, second, at)
    start = difference(at.first, at.second)
    index = -1 if at.message_index is None else at.message_index
    held = {s for _, text in first.turns for s in sentences(text)} | set(sentences(at.first))
    if kind in REORDERED:
        common = len(at.second) - start
    else:
        common = _alike(at.first[start:], at.second[start:], held, sentences)
    common += _common_turns(first, second.turns, index + 1, held, sentences)
    if kind in REORDERED:  # the same serialiser wrote the later turns, too
        common += _moved_letters(first, second, index + 1, held, sentences)
    if at.segment == "system" and second.tools == first.tools:
        common += sum(len(json.dumps(tool)) for tool in second.tools)
    return common


def template_words(talk: Talk, text: str) -> float:
    """Estimate the characters that the template writes around each turn."""
    said = sum(len(turn[1]) for turn in talk.turns) + sum(len(json.dumps(tool)) for tool in talk.tools)
    return min(MOST_WORDS, max(0, len(text) - said) / (len(talk.turns) + 1))


def known_turns(first: Talk, second: Talk, at: Place) -> int:
    """Count the turns behind the divergence that the forerunner has."""
    known = set(first.turns)
    index = -1 if at.message_index is None else at.message_index
    return sum(turn in known for turn in second.turns[index + 1 :])


def _common_turns(
    first: Talk, turns: Sequence[Turn], begin: int, held: set[str], sentences: Sentences
) -> int:
    """Count the characters of turns that the forerunner has: whole, or what is alike at the same place."""
    known, common = set(first.turns), 0
    for index in range(begin, len(turns)):
        role, text = turns[index]
        if (role, text) in known:
            common += len(text)
        elif index < len(first.turns) and first.turns[index][0] == role:
            common += _alike(first.turns[index][1], text, held, sentences)
        # What is new at the end is computed in any case, whatever sentences of it were said before.
    return common


def _kept_history(first: Talk, second: Talk, at: Place) -> int:
    """Count what would be there had the history only been appended to: as much as both hold behind."""
    if not _same_conversation(first, second, at):
        return 0
    index = at.message_index or 0
    start = difference(at.first, at.second)
    kept = sum(len(text) for _, text in second.turns[index:-1])
    had = sum(len(text) for _, text in first.turns[index:])
    return max(0, min(kept, had) - start)


def _same_conversation(first: Talk, second: Talk, at: Place) -> bool:
    """Tell whether anything that was said in the first, at the divergence or behind it, is in the second.

    Two sessions part in their history, too, but neither has lost anything to the other.
    """
    index = at.message_index or 0
    said = {turn for turn in first.turns[max(index, first.systems) :] if len(turn[1]) > 1}
    if any(turn in said for turn in second.turns[index:]):
        return True
    shorter, longer = sorted((at.first, at.second), key=len)
    if len(shorter) > 1 and shorter in longer:  # wrapped in something, or unwrapped
        return True
    return 2 * (difference(shorter, longer) + common_suffix(shorter, longer)) >= len(shorter) > 1


def _moved_letters(first: Talk, second: Talk, begin: int, held: set[str], sentences: Sentences) -> int:
    """Count what turns made of the same letters, in another order, have in common beyond what is alike."""
    known, more = set(first.turns), 0
    pairs = list(zip(first.turns, second.turns, strict=False))[begin:]
    for (role, one), (other_role, other) in pairs:
        if role == other_role and (other_role, other) not in known and _letters(one) == _letters(other):
            more += len(other) - _alike(one, other, held, sentences)
    return more


def _letters(text: str) -> str:
    return "".join(sorted("".join(text.split())))


def _alike(first: str, second: str, held: set[str], sentences: Sentences) -> int:
    """Count the characters that two texts share at their start, at their end or by whole sentences."""
    longest = max(difference(first, second), common_suffix(first, second))
    return min(len(second), max(longest, _common_sentences(second, held, sentences)))


def _common_sentences(text: str, held: set[str], sentences: Sentences) -> int:
    return sum(len(sentence) + 1 for sentence in sentences(text) if sentence in held)
