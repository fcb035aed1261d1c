"""Questions of lessons 1 to 3: the first token, the engine's own cache, and LMCache alone."""

from __future__ import annotations

from statistics import median

from ..lessons.places import Place
from ..quantities.formats import figure, percent, seconds, summary
from .question import Questions, Shown, tokens

FIRST_TOKEN, ASK_TWICE, SURVIVES = Questions("lesson1"), Questions("lesson2"), Questions("lesson3")
WHERE_TIME_GOES = "Where the time goes, long manual"
PARTING = "Two prompts that part"


@FIRST_TOKEN.ask(
    "A random word stands in front of each copy of the manual. What would the lesson measure if the word "
    "stood behind the manual?",
    reason="KV depends on all tokens before it. With the word at the end, every copy would begin with the "
    "same tokens, and every ask but the first ones would find nearly all of its prompt in the engine's "
    "cache: it would not be cold. In front, the word makes everything behind it new.",
    where=FIRST_TOKEN.prediction("Reused tokens of a cold prompt"),
)
def _nonce(shown: Shown) -> str:
    reused = shown.measured("Reused tokens of a cold prompt")
    return f"{len(reused)} cold asks reused {summary(reused, 'tokens')} each."


@FIRST_TOKEN.ask(
    "Why is the number of prefilled tokens not simply that of the manual and the question, and who can "
    "tell it before the engine runs?",
    reason="The model reads the prompt as the server renders it: the chat template adds marks of its own, "
    "and the tokenizer cuts the whole text, so that pieces do not add up. The server returns the token ids "
    "of a prompt without running the model; their number is the prediction.",
    where=FIRST_TOKEN.prediction("Prefilled, long manual"),
)
def _rendered(shown: Shown) -> str:
    name = "Prefilled, long manual"
    predicted, measured = summary(shown.predicted(name)), summary(shown.measured(name), "tokens")
    return f"{predicted} were predicted for the long manual, and {measured} were prefilled."


@FIRST_TOKEN.ask(
    "You make a prompt twice as long. Does its first token take twice as long?",
    reason="Not exactly. Some work is done once a request, so that a token of a short prompt carries more "
    "of it. Attention compares each token with all before it, so that a token of a long prompt costs more. "
    "The first keeps the factor below two, the second lifts it above.",
    where=FIRST_TOKEN.chart("What a token costs"),
)
def _growth(shown: Shown) -> str:
    costs = [shown.median("What a token costs", f"cold, {size}") for size in ("short", "medium", "long")]
    short, medium, long = (figure(cost, "ms", digits=3) for cost in costs)
    return f"a token cost {short} in the short prompt, {medium} in the medium one and {long} in the long one."


@FIRST_TOKEN.ask(
    "When you ask again, the prefill nearly disappears. Which cache shortens what is left of the wait?",
    reason="None. What is left is work on text and not on KV: HTTP, the chat template, the tokenizer, and "
    "the detokenizer's first step, for which it decodes the whole prompt. Reuse saves prefill alone, so "
    "the rest limits how far a first token can be brought forward.",
    where=FIRST_TOKEN.chart(WHERE_TIME_GOES),
)
def _rest(shown: Shown) -> str:
    cold, again = (shown.row(WHERE_TIME_GOES, ask) for ask in ("cold", "asked again"))
    told = []
    for row in (cold, again):
        parts = [value for value in row.values() if not isinstance(value, str)]
        told.append((seconds(row.get("prefill", 0)), seconds(sum(parts) - row.get("prefill", 0))))
    (prefill, rest), (short, same) = told
    return f"the prefill took {prefill} cold and {short} asked again; all else took {rest} and {same}."


@FIRST_TOKEN.ask(
    "The client's TTFT is longer than the engine's own. Is one of the two clocks wrong?",
    reason="No: they time different stretches. The engine's begins when the request has been read and ends "
    "with the token. The client's also holds the reading of the request, the way back, and the step in "
    "which the prompt is decoded once. Only what is left after these are added would be a disagreement.",
    where=FIRST_TOKEN.chart("The client's TTFT less the engine's, cold"),
)
def _clocks(shown: Shown) -> str:
    name = "The client's TTFT less the engine's, cold"
    apart = [shown.median(name, arm) for arm in ("all of it", "and less the road")]
    whole, left = (figure(1000 * value, "ms", digits=2) for value in apart)
    return f"the client's cold TTFT was {whole} longer (median); with both added, {left} were left."


@ASK_TWICE.ask(
    "The two prompts agree for more tokens than are reused. Where are the others?",
    reason="In the block in which the prompts part. The engine keeps KV by whole blocks, and finds one "
    "only if every token in it, and all before it, are equal. So the shared prefix is rounded down, and "
    "its last tokens are prefilled again although they are equal.",
    where=ASK_TWICE.chart(PARTING),
)
def _whole_blocks(shown: Shown) -> str:
    chart = shown.chart(PARTING)
    shared, reused, block = chart["shared"], chart["reused"]["engine"], chart["block"]
    return (
        f"the prompts of the first round agree for {tokens(shared)}. With blocks of {block} that makes "
        f"{reused // block} whole ones, which are {tokens(reused)}; {tokens(shared - reused)} were lost to "
        "rounding."
    )


@ASK_TWICE.ask(
    "The two prompts also end alike. Why is nothing of their end reused?",
    reason="It stands behind the first token that differs. A token's KV is computed from the token and all "
    "before it, so the same words have another KV behind other words. Reuse goes from the front to the "
    "first difference, and no further.",
    where=ASK_TWICE.chart(PARTING),
)
def _same_end(shown: Shown) -> str:
    return (
        f"the last {tokens(shown.chart(PARTING)['equal_at_end'])} are the same in both, and were prefilled."
    )


@ASK_TWICE.ask(
    "Somebody puts the question in front of the manual. Which hit rate do you predict?",
    reason="Next to nothing. The prompts part at the first word of the question, within their first "
    "blocks, and the whole manual stands behind it. Nothing was added or left out; only the order decides. "
    "The second exercise begins there.",
    where=Place("lesson2", "served"),
)
def _question_first(shown: Shown) -> str:
    rate = percent(shown.headline("hit_rate"))
    return (
        f"the question stood behind the manual, and the hit rate was {rate}; the other order was not asked."
    )


@ASK_TWICE.ask(
    "LMCache has stored the manual as well. Why does it serve nothing here, and when would it?",
    reason="vLLM looks into its own cache first, and takes from LMCache only what it lacks. While the engine "
    "holds the prompt, LMCache has nothing to add. It serves when the engine's blocks are gone: after a "
    "restart, when other prompts have pushed them out, or on another engine.",
    where=Place("lesson2", "served"),
)
def _own_cache_first(shown: Shown) -> str:
    served = shown.headline("tokens")
    lmcache = served["lmcache_l1"] + served["lmcache_l2"]
    return (
        f"the engine's own cache served {tokens(served['engine'])} of the second asks, and LMCache "
        f"{lmcache:,}."
    )


@ASK_TWICE.ask(
    "Nearly every token is reused. Why does the time to the first token not drop by the same share?",
    reason="The hit rate counts tokens, the TTFT also holds what no cache saves: template, tokenizer, "
    "HTTP, the detokenizer's first step, and the prefill of the few tokens behind the last whole block. "
    "The longer the prompt, the smaller is the share of that rest.",
    where=ASK_TWICE.chart("TTFT"),
)
def _drop_below_rate(shown: Shown) -> str:
    cold, warm = (shown.time("TTFT", arm) for arm in ("first ask, cold", "second ask, warm"))
    rate, drop = percent(shown.headline("hit_rate")), percent(shown.headline("ttft_drop"))
    return f"the hit rate was {rate} and the TTFT dropped by {drop}, from {cold} to {warm}."


@SURVIVES.ask(
    "After the restart another question is asked about each manual. Why may LMCache then give back a whole "
    "chunk less, though only a few words are new?",
    reason="LMCache finds a chunk only if all of its tokens, and all before it, are equal. The chunk in "
    "which the questions part is another chunk, however few of its tokens differ, and it is not found. "
    "Whether that costs a chunk depends on where the question lies in it.",
    where=SURVIVES.prediction("From LMCache, engine restarted"),
)
def _chunk_less(shown: Shown) -> str:
    same, other = (shown.measured(f"From LMCache, engine {how}") for how in ("emptied", "restarted"))
    return (
        f"LMCache served {summary(same, 'tokens')} when the same question came again, and "
        f"{summary(other, 'tokens')} of the other question."
    )


@SURVIVES.ask(
    "The engine is also restarted without LMCache. What could you not claim without that control?",
    reason="That LMCache made the difference. A new engine might be fast for other reasons: files that the "
    "system still holds in memory, kernels that are compiled. The control restarts in the same way, reuses "
    "nothing, and shows what the restart costs by itself.",
    where=SURVIVES.chart("TTFT"),
)
def _control(shown: Shown) -> str:
    reused = summary(shown.measured("Reused without LMCache, engine restarted"), "tokens")
    without, restarted = (
        shown.time("TTFT", arm) for arm in ("no LMCache, engine restarted", "LMCache, engine restarted")
    )
    return (
        f"the engine without LMCache reused {reused} and took {without} (median); with LMCache {restarted}."
    )


@SURVIVES.ask(
    "Both caches give back the same number of tokens. Which work does LMCache have that the engine's own "
    "cache has not?",
    reason="The engine's own blocks lie where they are used, and a hit only points at them. LMCache's KV "
    "lies in another process: the prompt's ids are looked up there, and the KV is copied into the engine's "
    "blocks. That is the price for KV that outlives the engine.",
    where=SURVIVES.chart("TTFT"),
)
def _price(shown: Shown) -> str:
    own, lmcache = (shown.time("TTFT", arm) for arm in ("engine's cache", "LMCache, engine emptied"))
    return f"the median TTFT was {own} from the engine's cache and {lmcache} from LMCache."


@SURVIVES.ask(
    "Why is LMCache's answer compared with that of the engine's own reuse, and not with the cold one?",
    reason="Any reuse changes the shape of the prefill, and for another shape sums may be added in another "
    "order and round differently. That is not LMCache's doing. Its promise is to give back what the engine "
    "would have kept, and that can be checked bit for bit.",
    where=SURVIVES.prediction("Same answer as the engine's own"),
)
def _same_answer(shown: Shown) -> str:
    (rounds,), (same,) = (
        values("Same answer as the engine's own")[:1] for values in (shown.predicted, shown.measured)
    )
    moved = [
        median(shown.values("First log-probability, from the cold one", arm)) for arm in ("engine", "lmcache")
    ]
    own, lmcache = (figure(value, digits=2) for value in moved)
    return (
        f"{same:,.0f} of {rounds:,.0f} answers equal those of the engine's own reuse. The first "
        f"log-probability lies {own} nats (median) from the cold one with the engine's reuse, and {lmcache} "
        "with LMCache's."
    )


@SURVIVES.ask(
    "Your engine never restarts, stands alone, and its cache holds all of your prompts. What does LMCache "
    "bring you?",
    reason="Nothing: the engine's own cache serves them all, and sooner. LMCache pays when KV must outlive "
    "the engine (a restart, a deployment), when there is more of it than the engine has room for, or when "
    "another engine needs it.",
    where=SURVIVES.chart("Who served the prompt"),
)
def _needless(shown: Shown) -> str:
    row = shown.row("Who served the prompt", "engine's cache")
    own, lmcache = row.get("engine's own cache", 0), row.get("LMCache memory", 0)
    return (
        f"a request to the engine that held its prompt took {tokens(own)} from the engine and "
        f"{tokens(lmcache)} from LMCache."
    )
