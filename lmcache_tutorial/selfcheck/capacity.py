"""Questions of lessons 6 and 7: more data than fits, and many engines."""

from __future__ import annotations

from collections.abc import Mapping

from ..quantities.formats import figure, percent, sequence, summary
from .question import NotShownError, Questions, Shown, tokens

MORE_DATA, MANY_ENGINES = Questions("lesson6"), Questions("lesson7")
SCAN, KEPT, BEHIND, RETAINED = "8 documents", "8, nothing evicted", "8, files behind", "8, files, retained"
SECOND_PASS = "The second pass"
COULD_HIT = "What the router could have hit"
ALONE, SHARED = "round_robin, nothing shared", "round_robin, one Valkey"


@MORE_DATA.ask(
    "Memory has room for half of the documents, and all are asked in turn, twice. Why is the hit rate "
    "nothing, and not a half?",
    reason="What was not used for the longest time is given up first, and in a scan exactly that is asked "
    "next. Each document is pushed out shortly before its turn comes. So the hit rate does not fall slowly "
    "as the working set grows: it falls off a cliff.",
    where=MORE_DATA.prediction(f"Reused, {SCAN}"),
)
def _cliff(shown: Shown) -> str:
    return f"the second pass over {SCAN} reused {summary(shown.measured(f'Reused, {SCAN}'), 'tokens')} each."


@MORE_DATA.ask(
    "A memory that never gives anything up does better in this scan. Would you run your deployment with it?",
    reason="Only if the same documents are asked for ever. The first ones that fit stay and hit, and later "
    "ones never get in. When your users turn to other documents, the memory is full of what nobody asks "
    "any more. No policy suits all workloads: look at yours.",
    where=MORE_DATA.prediction(f"Reused, {KEPT}"),
)
def _noop(shown: Shown) -> str:
    reused = shown.measured(f"Reused, {KEPT}")
    return (
        f"{sum(1 for count in reused if count)} of {len(reused)} documents were served: "
        f"{sequence(reused, 'tokens')}."
    )


@MORE_DATA.ask(
    "Files stand behind LMCache's memory. Why does an eviction from the memory lose nothing then?",
    reason="LMCache writes a chunk to the files when it is stored, and not when it is pushed out. So the "
    "memory holds copies, and giving one up loses no KV; the next question about it takes the longer way "
    "through the files.",
    where=MORE_DATA.prediction(f"Reused, {BEHIND}"),
)
def _files(shown: Shown) -> str:
    with_files, without = (summary(shown.measured(f"Reused, {arm}"), "tokens") for arm in (BEHIND, SCAN))
    return (
        f"each document of the second pass reused {with_files} with files behind the memory, and {without} "
        "without."
    )


def _by_tier(row: Mapping[str, float]) -> tuple[float, float]:
    """Return what a request took from LMCache's memory and from what stands behind it [tokens, mean]."""
    return row.get("LMCache memory", 0), row.get("LMCache second tier", 0)


@MORE_DATA.ask(
    "What comes back from the files may be retained in memory. Why does the memory then serve *less* of "
    "this scan?",
    reason="What is retained takes the place of documents that will be needed soon: the cliff again, only "
    "within the memory. Without it, what comes back stays until the engine has it, and the documents that "
    "are in memory stay there for their turn. The reused tokens are the same; the way is longer.",
    where=MORE_DATA.chart(SECOND_PASS),
)
def _retained(shown: Shown) -> str:
    memory, files = _by_tier(shown.row(SECOND_PASS, BEHIND))
    kept, kept_files = _by_tier(shown.row(SECOND_PASS, RETAINED))
    return (
        f"a request took {tokens(memory)} from memory and {tokens(files)} from files (means); with what "
        f"came back retained, {tokens(kept)} and {tokens(kept_files)}."
    )


@MORE_DATA.ask(
    "How fast must a tier be, so that a first token from it comes sooner than a computed one?",
    reason="It must bring a token's KV in less time than the engine takes to compute it: its bytes a "
    "second must exceed the prefill rate times the KV bytes of a token. To save 70 % of the time it must "
    "be more than three times as fast as that, since the load may take no more than the other 30 %.",
    where=MORE_DATA.chart("KV that must come"),
)
def _fast_enough(shown: Shown) -> str:
    needed, files = (shown.median("KV that must come", arm) for arm in ("needed", "files"))
    cold, after = (shown.time("TTFT of long documents", arm) for arm in ("cold", "all restarted"))
    needed_words, files_words = (figure(rate, "MB/s", digits=3) for rate in (needed, files))
    return (
        f"{needed_words} were needed for the bar, and the files brought {files_words} (median); the TTFT "
        f"went from {cold} to {after}."
    )


def _hit_rate(row: Mapping[str, float]) -> float:
    """Return the hit rate of an arm of the chart of what could have been hit."""
    counts = [count for count in row.values() if not isinstance(count, str)]
    if not sum(counts):
        raise NotShownError(COULD_HIT)
    return counts[0] / sum(counts)


@MANY_ENGINES.ask(
    "Why are there five documents? What would four have shown of round robin between two engines?",
    reason="With an even number every document meets the same engine at every pass, and round robin "
    "without any sharing looks perfect by accident. With an odd number each document changes the engine "
    "from pass to pass, as it does with many users.",
    where=MANY_ENGINES.prediction(f"Reused by each request, {ALONE}"),
)
def _odd(shown: Shown) -> str:
    reused = shown.measured(f"Reused by each request, {ALONE}")
    again = sequence(reused[len(reused) // 2 :], "tokens")
    return f"round robin with nothing shared reused in the second half of its requests: {again}."


@MANY_ENGINES.ask(
    "A router that keeps each document at one engine hits as much as sharing does. What is sharing good for?",
    reason="It makes hits independent of the router. Keeping a document at its engine works while that "
    "engine lives and is not too busy; a restart, one more engine or an overflow to another one costs a "
    "full prefill. With a shared tier every engine finds what any of them has computed.",
    where=MANY_ENGINES.chart(COULD_HIT),
)
def _independent(shown: Shown) -> str:
    arms = ("consistent_hash, nothing shared", ALONE, SHARED)
    sticky, alone, shared = (percent(_hit_rate(shown.row(COULD_HIT, arm))) for arm in arms)
    return (
        f"with nothing shared a router by session hit {sticky} and round robin {alone}; round robin with "
        f"one Valkey hit {shared}."
    )


@MANY_ENGINES.ask(
    "A cache-aware router knows which text it has sent where. What does a kv-aware router know beyond that?",
    reason="What the engines hold. They announce every block that they store or give up, so it also knows "
    "of prompts that came past the router, and of blocks that are gone. The other one guesses from its own "
    "past, and does not learn of an eviction or a restart.",
    where=MANY_ENGINES.prediction("From the engine's own cache"),
)
def _events(shown: Shown) -> str:
    name = "From the engine's own cache"
    predicted, measured = sequence(shown.predicted(name)), sequence(shown.measured(name), "tokens")
    return f"the events said beforehand that {predicted} would be reused, and the engines counted {measured}."


@MANY_ENGINES.ask(
    "One document is asked under two salts. Why must the other salt miss, and how would you notice a "
    "gateway that drops the field?",
    reason="A fast answer tells that somebody has asked about this text before; another customer should "
    "not learn that. So test it in pairs: the same salt must hit and another must miss. A gateway that "
    "drops the field lets both hit, which a test of hits alone would praise.",
    where=MANY_ENGINES.prediction("Reused, salt, theirs"),
)
def _salt(shown: Shown) -> str:
    ours, theirs = (
        summary(shown.measured(f"Reused, salt, {whose}"), "tokens") for whose in ("ours, again", "theirs")
    )
    return f"the same salt reused {ours}, and the first request of the other salt {theirs}."


@MANY_ENGINES.ask(
    "An engine answers soon about a document that it has never seen. Where does the KV come from, and what "
    "limits the time?",
    reason="From the LMCache to which both engines are connected: the other engine computed and stored it. "
    "It is copied in place of being computed, so that the copy rate limits the time, beside the look-up "
    "and the road that every request has.",
    where=MANY_ENGINES.chart("TTFT, first and other engine"),
)
def _never_seen(shown: Shown) -> str:
    name = "TTFT, first and other engine"
    cold, other = (shown.time(name, arm) for arm in ("first engine, cold", "other engine"))
    return f"the first engine took {cold} to compute it (median), and the other one {other}."
