"""The words that we use, what they mean, and where a run shows them.

README.md's table is made of these (``python .ci/readme_tables.py``), and so is the report's.
"""

from __future__ import annotations

from dataclasses import dataclass

from .places import Place


@dataclass(frozen=True, slots=True)
class Term:
    """A word, or some that belong together; ``meaning`` may hold `code` and *stress*, as in Markdown."""

    words: str
    meaning: str
    shown: Place


GLOSSARY = (
    Term(
        "prefill, decode",
        "reading the prompt; producing tokens one by one",
        Place("lesson1", "chart", "Where the time goes, long manual"),
    ),
    Term(
        "TTFT",
        "time to first token: request sent to first streamed piece with content, on the client's clock",
        Place("lesson1", "chart", "TTFT by prompt length"),
    ),
    Term(
        "KV",
        "the keys and values that attention keeps of every token; what a cache saves. They depend on the "
        "token *and all before it*, so only a prompt's beginning can be reused exactly (LMCache's "
        "CacheBlend, which reuses other parts too, is not used here)",
        Place("lesson6", "prediction", "All, in memory"),
    ),
    Term(
        "block",
        "vLLM's unit of KV (set here to 32 tokens on a CPU and 64 on a GPU); only whole blocks are reused",
        Place("lesson2", "chart", "Two prompts that part"),
    ),
    Term(
        "chunk",
        "LMCache's unit of KV (set here to 64 tokens on a CPU, 32 where it has AVX2 alone; 256 on a GPU); "
        "only whole chunks are kept",
        Place("lesson4", "prediction", "Reused as text grows, LMCache"),
    ),
    Term(
        "prefix cache",
        "the engine's own, in its memory; gone when the engine restarts",
        Place("lesson2", "served"),
    ),
    Term(
        "connector",
        "the part of vLLM that hands KV out and fetches it from outside; here LMCache's",
        Place("lesson3", "chart", "Who served the prompt"),
    ),
    Term(
        "hit",
        "prompt tokens whose KV a cache gave, so that they were not prefilled; say whose",
        Place("lesson2", "prediction", "Reused tokens of the second ask"),
    ),
    Term(
        "LMCache hit",
        "tokens that came to the engine through the connector",
        Place("lesson3", "prediction", "From LMCache, engine emptied"),
    ),
    Term(
        "second tier",
        "what LMCache keeps behind its memory: files, or a server such as Valkey",
        Place("lesson6", "chart", "The second pass"),
    ),
    Term(
        "working set",
        "the documents that are asked about again and again",
        Place("lesson6", "prediction", "Reused, 4 documents"),
    ),
    Term(
        "eviction, watermark",
        "a cache gives up what it holds; how full it is when it begins to: LMCache's memory at four fifths",
        Place("lesson6", "prediction", "Reused, 8 documents"),
    ),
    Term(
        "cyclic scan",
        "a working set that is asked in turn, and then again from its beginning",
        Place("lesson6", "chart", "The second pass"),
    ),
    Term(
        "router",
        "what stands in front of several engines and decides which of them gets a request",
        Place("lesson7", "chart", "What the router could have hit"),
    ),
    Term(
        "round robin, consistent hash, cache-aware, kv-aware",
        "its policies: the next engine; always the same for one session; the one that has seen most of this"
        " text; the one whose KV events say that it holds most of it",
        Place("lesson7", "chart", "Who served the second pass"),
    ),
    Term(
        "salt",
        "a word that a request carries (`cache_salt`): KV is shared only under the same one",
        Place("lesson7", "prediction", "Reused, salt, ours"),
    ),
    Term(
        "KV event",
        "what an engine announces of each block that it stores or gives up",
        Place("lesson7", "prediction", "From the engine's own cache"),
    ),
    Term(
        "release, regression",
        "a version of your application; what one of them does worse than the one before",
        Place("lesson9", "chart", "Hit rate by release"),
    ),
    Term(
        "gate, baseline",
        "a run that passes or fails, and decides what may go on; what it found once, to be held against "
        "later",
        Place("lesson9", "claims"),
    ),
    Term(
        "break-even",
        "the length of a prompt from which loading its KV takes less time than computing it; of a tier: the"
        " bytes a second that make the two equal",
        Place("lesson8", "chart", "Load or compute"),
    ),
    Term(
        "heartbeat",
        "a question that LMCache's connector asks its server again and again; without an answer the engine "
        "goes on without LMCache",
        Place("lesson8", "chart", "The cache server paused, longer"),
    ),
    Term(
        "namespace",
        "all that is kept under one salt: the same words in a new one are cold",
        Place("lesson8", "prediction", "Right answers"),
    ),
    Term(
        "hit rate",
        "reused prompt tokens / prompt tokens, over stated calls",
        Place("lesson2", "served"),
    ),
    Term(
        "static, dynamic",
        "text that is the same in every request; text that changes",
        Place("lesson4", "chart", "The second prompt"),
    ),
    Term(
        "static hit rate",
        "reused static tokens / static tokens",
        Place("lesson4", "chart", "Static hit rate"),
    ),
    Term(
        "cold, warm",
        "no cache, or the named cache, holds the prefix",
        Place("lesson2", "chart", "TTFT"),
    ),
    Term(
        "nonce",
        "a random word in front of a text, used once, so that no cache can know the text",
        Place("lesson1", "prediction", "Reused tokens of a cold prompt"),
    ),
    Term(
        "arm",
        "one of the kinds of asking that a lesson compares; the arms take turns in every round",
        Place("lesson3", "chart", "TTFT"),
    ),
    Term(
        "TTFT drop",
        "1 − median warm / median cold",
        Place("lesson2", "chart", "TTFT"),
    ),
    Term(
        "bar",
        "what a figure must exceed to pass: 90 % for a hit rate, 70 % for a TTFT drop (the *lower* end of "
        "its 95 % interval)",
        Place("lesson2", "claims"),
    ),
    Term(
        "undecided",
        "a bar lies within a time's interval, or two clocks may differ because the machine was busy: the "
        "rounds on this machine cannot tell",
        Place("lesson1", "claims"),
    ),
    Term(
        "sequential test",
        "a test that looks at the rounds at numbers fixed beforehand, and stops when it has an answer",
        Place("lesson4", "chart", "TTFT, clock in front"),
    ),
    Term(
        "Turn, Call",
        "one run of a graph; one request to the model, of which a turn holds one or more",
        Place("lesson5", "trace", "the last turn, append only"),
    ),
    Term(
        "Segment",
        "a named piece of a prompt, with how often it changes",
        Place("lesson2", "chart", "Two prompts that part"),
    ),
    Term(
        "policy",
        "the rule by which an agent chooses the messages that a request begins with",
        Place("lesson5", "chart", "Prefilled in the warm turns"),
    ),
    Term(
        "append-only",
        "a history to which messages are added and nothing else is done",
        Place("lesson5", "chart", "Hit rate of the warm turns"),
    ),
    Term(
        "fan-out",
        "several nodes of a graph that start side by side",
        Place("lesson5", "chart", "TTFT of the three experts"),
    ),
    Term(
        "trace, span, generation",
        "what Langfuse keeps of a turn; one timed step in it; the span of one call",
        Place("lesson1", "trace", "one cold ask"),
    ),
)


def glossary_table() -> str:
    """Build the table in Markdown: each word, and what it means."""
    return "\n".join(
        ["| word | meaning |", "|---|---|", *(f"| {one.words} | {one.meaning} |" for one in GLOSSARY)]
    )
