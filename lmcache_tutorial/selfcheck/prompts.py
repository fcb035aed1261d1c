"""Questions of lessons 4 and 5: the order of a prompt, and an agent's history."""

from __future__ import annotations

from ..quantities.formats import figure, percent, seconds, sequence, summary
from .question import NotShownError, Questions, Shown, times, tokens

STATIC_FIRST, AGENT = Questions("lesson4"), Questions("lesson5")
CALLS_A_TURN = 3  # of lesson 5's agent: route, expert, answer
RATES, PREFILLED = "Hit rate of the warm turns", "Prefilled in the warm turns"
IN_FRONT = "TTFT, clock in front"


@STATIC_FIRST.ask(
    "A clock stands in front of the manual, and every other word is as it was. Why is the manual prefilled "
    "again?",
    reason="Each token's KV is computed from all tokens before it. The clock is the first of them, so behind "
    "another clock the manual's KV is another, word for word. At the end the same clock changes nothing that "
    "stands before it.",
    where=STATIC_FIRST.prediction("Reused, clock at, front"),
)
def _clock_in_front(shown: Shown) -> str:
    front, end = (
        summary(shown.measured(f"Reused, clock at, {place}"), "tokens") for place in ("front", "end")
    )
    return f"the second prompt reused {front} with the clock in front, and {end} with the clock at the end."


@STATIC_FIRST.ask(
    "The clock stands half way into the manual. Which static hit rate do you predict, and what moves it "
    "away from a half?",
    reason="A half: what stands before the clock is reused, what stands behind it is not. Rounding down to "
    "whole blocks takes at most one block off it; with a longer manual the same block weighs less.",
    where=STATIC_FIRST.chart("Static hit rate"),
)
def _half_way(shown: Shown) -> str:
    rates = {arm: rate for place, rate, arm in shown.chart("Static hit rate")["rows"] if place == 50}
    if not rates.keys() >= {"predicted", "measured"}:
        raise NotShownError("half way")
    predicted, measured = (percent(rates[arm] / 100) for arm in ("predicted", "measured"))
    return f"{predicted} were predicted and {measured} measured."


@STATIC_FIRST.ask(
    "That the TTFT does not drop is claimed by a test with another number of rounds on each machine. Why "
    "not look after every round, and stop as soon as the answer is clear?",
    reason="Noise alone makes the answer look clear now and then, and whoever looks often enough meets "
    "such a moment. So the test looks after numbers of rounds that were fixed beforehand, and each look "
    "has so strict a bound that all of them together err seldom enough.",
    where=STATIC_FIRST.chart(IN_FRONT),
)
def _looks(shown: Shown) -> str:
    rounds = len(shown.values(IN_FRONT, "first request"))
    first, second = (shown.time(IN_FRONT, arm) for arm in ("first request", "second request"))
    return (
        f"it took {rounds} rounds; the median TTFT was {first} for the first request and {second} for the "
        "second."
    )


@STATIC_FIRST.ask(
    "You add some words to the static text. Why may the engine reuse more of it while LMCache does not?",
    reason="Both round down, to units of different size. The engine's next block is full before LMCache's "
    "next chunk, which may hold several blocks. Until the chunk is full, the words that were added share "
    "it with the clock, and such a chunk is never found again.",
    where=STATIC_FIRST.prediction("Reused as text grows, LMCache"),
)
def _rounding(shown: Shown) -> str:
    engine, lmcache = (
        sequence(shown.measured(f"Reused as text grows, {cache}"), "tokens")
        for cache in ("the engine", "LMCache")
    )
    return f"the engine reused {engine} as the text grew, and LMCache {lmcache}."


@STATIC_FIRST.ask(
    "Two prompts have the same tools and the same record. How can the second reuse less than the same prompt "
    "sorted?",
    reason="A set or a dictionary may come in another order, and then the tokens are others from the first "
    "tool or key that moved. The model may answer alike, but a cache compares tokens. Sort tools and keys "
    "before they are rendered: the content stays, and so does the prefix.",
    where=STATIC_FIRST.prediction("Reused, tools shuffled"),
)
def _orders(shown: Shown) -> str:
    arms = ("sorted", "tools shuffled", "keys shuffled")
    ordered, tools, keys = (summary(shown.measured(f"Reused, {arm}"), "tokens") for arm in arms)
    return (
        f"the sorted prompt reused {ordered}, with the tools shuffled {tools}, with the keys shuffled {keys}."
    )


@AGENT.ask(
    "The hit rates of append-only history and of a sliding trim lie close together. Why does the choice "
    "matter all the same?",
    reason="Most of every prompt is the manual, which both reuse, so it hides the difference in a rate. "
    "Users wait for the tokens that are *not* reused. Compare those: there the policies lie further apart.",
    where=AGENT.chart(PREFILLED),
)
def _not_by_rate(shown: Shown) -> str:
    rates = [shown.median(RATES, policy) for policy in ("append only", "sliding trim")]
    kept, trimmed = (shown.median(PREFILLED, policy) for policy in ("append only", "sliding trim"))
    if not kept:
        raise NotShownError(PREFILLED)
    return (
        f"the hit rates were {percent(rates[0])} and {percent(rates[1])}, but the sliding trim prefilled "
        f"{tokens(trimmed)} and append-only {tokens(kept)}: {times(trimmed / kept)} as many."
    )


@AGENT.ask(
    "A sliding window keeps the last messages word for word. Why is their KV of no use?",
    reason="They now stand behind other text. Where the oldest message was cut off, the prompt goes on with "
    "another one, and from there every KV is another. Reuse ends behind the system prompt, where the cut is, "
    "though all words that follow had been read before.",
    where=AGENT.prediction("Reused by each request, sliding trim"),
)
def _window(shown: Shown) -> str:
    firsts = [
        sequence(shown.measured(f"Reused by each request, {policy}")[::CALLS_A_TURN], "tokens")
        for policy in ("sliding trim", "append only")
    ]
    return f"the first requests of the turns reused {firsts[0]} with the trim, and {firsts[1]} without it."


@AGENT.ask(
    "The context is nearly full, so messages must be dropped. Why many at once, and seldom, rather than "
    "one pair a turn?",
    reason="Each cut breaks the prefix once: the request after it prefills the history that is left. "
    "Between two cuts the history only grows, and is reused whole. So it counts more how often you cut "
    "than how much.",
    where=AGENT.chart(PREFILLED),
)
def _large_steps(shown: Shown) -> str:
    steps, sliding = (tokens(shown.median(PREFILLED, policy)) for policy in ("large steps", "sliding trim"))
    return (
        f"{steps} were prefilled in the warm turns with large steps, and {sliding} with a cut at each turn."
    )


@AGENT.ask(
    "The system prompt is rewritten at every turn, and still some of its requests reuse nearly everything. "
    "Which ones, and why?",
    reason="The second and the third request of a turn: they begin with the same new system prompt as the "
    "first, which has just computed it. Only the first request of a turn finds nothing. That is why a hit "
    "rate over all requests looks better than what a user waits for.",
    where=AGENT.prediction("Reused by each request, rewritten"),
)
def _rewritten(shown: Shown) -> str:
    reused = shown.measured("Reused by each request, rewritten")
    return f"the requests, {CALLS_A_TURN} a turn, reused {sequence(reused, 'tokens')}."


@AGENT.ask(
    "Three experts start at the same moment over one cold manual. How often is it prefilled, and what does "
    "each of them wait for?",
    reason="Once. The engine's scheduler hands on the blocks of a prompt while it is being prefilled, so "
    "the others reuse what the first computes. But all of them wait for that prefill; with one short "
    "request ahead, that request waits in their place.",
    where=AGENT.chart("TTFT of the three experts"),
)
def _fan_out(shown: Shown) -> str:
    waits = {
        arm: shown.values("TTFT of the three experts", arm) for arm in ("side by side", "one request ahead")
    }
    longest, ahead = (seconds(max(values)) for values in waits.values())
    reused = shown.measured("Reused by each request, side by side")
    whole = figure(sum(1 for count in reused if count))
    return (
        f"{whole} of {len(reused)} experts reused the manual. The longest wait for a first token was "
        f"{longest} side by side, and {ahead} with one request ahead."
    )
