"""What a reader may predict before a lesson measures: two or three numbers of each, and how to work them out.

A question names a prediction that the lesson makes (``report.compare``), so that the reader's number, the
lesson's own prediction and what was measured stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Of = Literal["each", "all"] | int


@dataclass(frozen=True, slots=True)
class Question:
    """One number that is asked for.

    Attributes:
        name: the prediction of the lesson that it is about.
        asks: the question.
        how: how it is worked out, in a sentence or two.
        unit: of the number.
        of: which of the prediction's values it is about: ``each`` of them, ``all`` of them added up, or the
            one of a request, counted from 1.
    """

    name: str
    asks: str
    how: str
    unit: str = "tokens"
    of: Of = "each"


def questions_of(lesson: str) -> tuple[Question, ...]:
    """Return the questions of a lesson, in the order in which they are asked.

    Args:
        lesson: its id.

    Returns:
        Two or three; none for what is no lesson.

    >>> [question.unit for question in questions_of("lesson2")], questions_of("lesson0")
    (['tokens', 'tokens'], ())
    """
    return QUESTIONS.get(lesson, ())


QUESTIONS: Mapping[str, tuple[Question, ...]] = {
    "lesson1": (
        Question(
            "Reused tokens of a cold prompt",
            "A prompt begins with a word that no cache has seen. How many of its tokens are reused?",
            "A cache gives back KV from the front, in whole blocks, up to the first token that differs.",
        ),
        Question(
            "Prefilled, long manual",
            "How many tokens of a cold prompt about the long manual are prefilled?",
            "Take a long document, and add a few dozen tokens: the new word in front, the question, and what "
            "the chat template puts around them.",
        ),
    ),
    "lesson2": (
        Question(
            "Reused tokens of the second ask",
            "Two questions about one long manual: how many tokens of the second prompt are reused?",
            "Both prompts agree up to their questions. Take the long document, add the beginning of the chat "
            "template and the new word in front, and round down to whole blocks.",
        ),
        Question(
            "Of them from LMCache",
            "How many of these tokens come from LMCache?",
            "LMCache has stored the manual, too. But vLLM asks its own cache first, and asks LMCache only "
            "for what it lacks.",
        ),
    ),
    "lesson3": (
        Question(
            "From LMCache, engine emptied",
            "The engine's own cache is emptied. How many tokens of a prompt that was asked before come from "
            "LMCache?",
            "Take the long document and a few dozen tokens around it, and round down to whole chunks.",
        ),
        Question(
            "Reused without LMCache, engine restarted",
            "The engine is started again, without LMCache. How many tokens of a prompt that it knew are "
            "reused?",
            "The engine's own cache lies in its memory, and ends with it.",
        ),
        Question(
            "Same answer as the engine's own",
            "In how many rounds is the answer from LMCache's KV the same, bit for bit, as the answer from "
            "the engine's own?",
            "LMCache stores KV and gives it back; nothing is computed in between.",
            unit="rounds",
        ),
    ),
    "lesson4": (
        Question(
            "Reused, clock at, front",
            "A clock stands in front of the manual. How many tokens of the second prompt are reused?",
            "Reuse ends where two prompts part. In front of the clock stand only a few tokens of the chat "
            "template, and a part of a block does not count.",
        ),
        Question(
            "Reused, clock at, half way",
            "The clock stands in the middle of the long manual. How many tokens are reused now?",
            "Take half of a long document and the few tokens of the chat template in front of it, and round "
            "down to whole blocks.",
        ),
        Question(
            "From LMCache, static text shorter than a chunk",
            "The text in front of the clock is shorter than a chunk. How many tokens does LMCache give back?",
            "LMCache keeps whole chunks, and the first one holds a part of the clock.",
        ),
    ),
    "lesson5": (
        Question(
            "Reused by each request, append only",
            "An agent keeps its whole history. How many tokens does request 4 reuse, the first one of the "
            "second turn?",
            "It begins with what the first turn has sent: the template with its tool, the long manual, and "
            "a question that pastes a fifth of a short document. Round down to whole blocks.",
            of=4,
        ),
        Question(
            "Reused by each request, rewritten",
            "The system prompt is written anew for each turn, with the topic in front of the manual. How "
            "many tokens does request 4 reuse?",
            "The topic of the second turn is another one, and it stands among the first tokens.",
            of=4,
        ),
        Question(
            "Reused by each request, side by side",
            "Three experts start side by side over a cold manual of medium length. How many tokens does the "
            "one reuse that reuses the most?",
            "Within one engine a request may take over blocks that another one has just prefilled. Round "
            "the medium document down to whole blocks.",
            of=3,
        ),
    ),
    "lesson6": (
        Question(
            "Reused, 8 documents",
            "LMCache's memory has room for four documents, and eight are asked in turn, twice. How many "
            "tokens does each question of the second pass reuse?",
            "An eviction gives up what was not used for the longest time. Which document is asked next?",
        ),
        Question(
            "Reused, 8, nothing evicted",
            "The same, but LMCache gives up nothing, and drops what finds no room. How many tokens do the "
            "eight questions of the second pass reuse together?",
            "The four documents are to stay below the watermark, four fifths of the memory; here all of it "
            "is used. Count the documents that find room, and take the whole chunks of each.",
            of="all",
        ),
        Question(
            "All, in files",
            "How many bytes do all eight documents take in the files behind the memory?",
            "Multiply the tokens in the whole chunks of a document by the KV bytes of a token, and by eight.",
            unit="bytes",
        ),
    ),
    "lesson7": (
        Question(
            "Reused by each request, round_robin, nothing shared",
            "A router sends five documents to two engines in turn, and then all of them once more. Nothing "
            "is shared. How many tokens do the ten requests reuse together?",
            "Write down which engine gets which request. Does a document come back to the engine that read "
            "it?",
            of="all",
        ),
        Question(
            "Reused by each request, round_robin, one Valkey",
            "The same with one Valkey behind both LMCaches. How many tokens does request 6 reuse, the second "
            "question about the first document?",
            "What anybody has stored is there for all, in whole chunks.",
            of=6,
        ),
        Question(
            "Reused, salt, theirs",
            "A document was asked about under the salt of one customer. How many tokens does the first "
            "request under the salt of another one reuse?",
            "KV is shared only under the same salt.",
        ),
    ),
    "lesson8": (
        Question(
            "From LMCache, half a chunk",
            "A prompt of half a chunk is asked again, and the engine's own cache is empty. How many tokens "
            "come from LMCache?",
            "LMCache keeps whole chunks.",
        ),
        Question(
            "From LMCache, engine has it",
            "The engine's own cache holds a prompt, and LMCache holds it, too. How many tokens come from "
            "LMCache?",
            "vLLM asks its own cache first, and asks LMCache only for what it lacks.",
        ),
    ),
    "lesson9": (
        Question(
            "Reused by each request",
            "After nine requests a clock slips into the front of the system prompt. How many tokens does "
            "request 10 reuse, the first one with the clock?",
            "The clock shows a time that no request before has had.",
            of=10,
        ),
        Question(
            "Reused, another chunk",
            "Somebody sets LMCache's chunk sixteen times as large. How many tokens of a second request does "
            "LMCache still give back?",
            "Take the long document (16,000 tokens on a GPU); round down to whole chunks of the new size.",
        ),
        Question(
            "Reused, a salt for each",
            "Each request gets a salt of its own. How many tokens of the second one are reused?",
            "KV is shared only under the same salt.",
        ),
    ),
}
