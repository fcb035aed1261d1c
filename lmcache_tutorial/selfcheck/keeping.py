"""Questions of lessons 8 and 9: what it costs and what breaks, and how it is watched and kept."""

from __future__ import annotations

from ..quantities.formats import figure, percent, seconds, sequence, summary
from .question import NotShownError, Questions, Shown, tokens

COSTS, WATCH = Questions("lesson8"), Questions("lesson9")
STORED = "Stored over not stored"
ALONE, TOGETHER = "With a slow tier, 8 chunks", "With a slow tier, 4 at once, 4 chunks each"
KILLED, PAUSED = "The cache server killed", "The cache server paused, longer"
RELEASES, BY_RELEASE, BY_REQUEST = (
    ("before", "with a clock", "mended"),
    "Hit rate by release",
    "Reused by each request",
)
FAULTS = ("a clock", "order of tools", "a salt for each", "another chunk")


@COSTS.ask(
    "Why does an honest benchmark of a cache contain workloads that must gain nothing?",
    reason="They show that the meter can read zero. If it reports a gain where no token can be reused, it "
    "measures something else: a warm-up, an order, a machine that got quieter. Only after that is a gain "
    "elsewhere worth believing.",
    where=COSTS.prediction("From LMCache, no overlap"),
)
def _nothing(shown: Shown) -> str:
    arms = ("no overlap", "half a chunk", "engine has it")
    found = [summary(shown.measured(f"From LMCache, {arm}"), "tokens") for arm in arms]
    return (
        f"LMCache gave {found[0]} where prompts share nothing, {found[1]} below a chunk, and {found[2]} "
        "where the engine had it all."
    )


@COSTS.ask(
    "What does storing cost the request that comes first, and from what can you predict it?",
    reason="A store is a copy, as a load is, only in the other direction. So it should take no longer than "
    "a load, and a load can be measured: the gain of a prompt says how many times as long computing takes. "
    "A store adds at most one part in that many.",
    where=COSTS.chart(STORED),
)
def _storing(shown: Shown) -> str:
    most, found = (figure(shown.median(STORED, arm), "times", digits=3) for arm in ("at most", "found"))
    return (
        f"a stored prompt was predicted to take at most {most} as long as one that is not, and took {found} "
        "as long."
    )


@COSTS.ask(
    "Why does loading not pay for every prompt of a whole chunk, whatever the machine?",
    reason="A load costs a little for each token and something once: the look-up, the way there and back. "
    "A prefill costs more for each token and little beside that. The lines cross at the break-even. On a "
    "fast engine with a small model it may lie beyond a chunk; where it lies below one, the first whole "
    "chunk pays.",
    where=COSTS.chart("TTFT, 1 chunk"),
)
def _break_even(shown: Shown) -> str:
    one, two = (
        tuple(shown.time(f"TTFT, {length}", way) for way in ("computed", "loaded"))
        for length in ("1 chunk", "2 chunks")
    )
    return f"a chunk took {one[0]} computed and {one[1]} loaded, two chunks {two[0]} and {two[1]} (medians)."


@COSTS.ask(
    "A tier brings KV at half the rate at which the engine makes it. Why does it lose more when four "
    "requests come together?",
    reason="One request waits for its own bytes. Four share the bandwidth, and this LMCache loads for one "
    "at a time, so the last one waits for the bytes of all. A tier must therefore be fast enough for your "
    "load, and not for one request.",
    where=COSTS.chart(TOGETHER),
)
def _slow_tier(shown: Shown) -> str:
    told = [
        [shown.time(name, arm) for arm in ("computed", "loaded", "predicted")] for name in (ALONE, TOGETHER)
    ]
    one, four = (
        f"{loaded} loaded ({predicted} predicted) and {computed} computed"
        for computed, loaded, predicted in told
    )
    return f"one request of 8 chunks took {one}; four at once, of 4 chunks each, took {four} (medians)."


@COSTS.ask(
    "A cache server is paused, and not killed. Why is that the worse fault, and what ends the wait?",
    reason="Its connections stay open, so nothing tells the engine that it is gone. Only a time limit "
    "does: that of the request which waits (`lmcache.mp.mq_timeout`), and that of the heartbeat. With "
    "LMCache's defaults a request would wait for 300 s, so set both.",
    where=COSTS.chart(PAUSED),
)
def _paused(shown: Shown) -> str:
    killed, paused = (seconds(max(shown.values(name, "in flight"))) for name in (KILLED, PAUSED))
    after = shown.time(PAUSED, "meanwhile")
    return (
        f"the requests in flight took {killed} at most with the server killed, and {paused} with it paused; "
        f"requests that came while it was paused took {after}."
    )


@WATCH.ask(
    "A clock in the system prompt breaks only every third request. Why not all, and how could you overlook "
    "it?",
    reason="The clock is read when a turn begins. The turn's other requests carry the same clock and reuse "
    "what the first one computed. A hit rate over everything therefore falls only in part, and may look "
    "harmless: watch it by node, where the first node falls to nothing.",
    where=WATCH.chart("Three releases, from the traces"),
)
def _every_third(shown: Shown) -> str:
    _, clock, mended = (percent(shown.median(BY_RELEASE, release)) for release in RELEASES)
    return f"the hit rate over all requests was {clock} with the clock, and {mended} when it was mended."


@WATCH.ask(
    "The first release and the mended one send prompts of the same form. Why has the mended one the higher "
    "hit rate?",
    reason="Nobody had read the manual before the first release asked; its very first request is cold, and "
    "counts. The mended release finds what the first one has computed. Compare windows that begin in the "
    "same state, or leave the cold request out.",
    where=WATCH.chart(BY_RELEASE),
)
def _first_is_cold(shown: Shown) -> str:
    before, _, mended = (percent(shown.median(BY_RELEASE, release)) for release in RELEASES)
    first = tokens(shown.measured(BY_REQUEST)[0])
    return f"the very first request reused {first}; the hit rates were {before} before and {mended} mended."


@WATCH.ask(
    "You have traces and no counters. Which three things must a trace hold, so that hit rate and TTFT can "
    "be told by node?",
    reason="The split of the prompt into what was prefilled and what was reused; the moment of the first "
    "streamed piece, beside the start; and the node that asked. The chat model must stream, and ask for "
    "usage: without these two the trace looks complete and has neither.",
    where=WATCH.prediction(BY_REQUEST),
)
def _from_traces(shown: Shown) -> str:
    predicted, measured = shown.predicted(BY_REQUEST), shown.measured(BY_REQUEST)
    exact = sum(one == other for one, other in zip(predicted, measured, strict=False))
    return (
        f"the traces told of {len(measured)} requests, and {exact} of them reused exactly what was predicted."
    )


@WATCH.ask(
    "The gate passes on your agent. Why break the agent on purpose before you trust the gate?",
    reason="A gate that cannot fail passes too. It may ask the wrong prompts, count hits that are there "
    "anyway, or have a bar that nothing reaches. Plant the faults that it must find, and see that it fails "
    "with the reason: then a pass says something.",
    where=WATCH.prediction(f"Reused, {FAULTS[0]}"),
)
def _seen_to_fail(shown: Shown) -> str:
    found = [f"{fault}: {summary(shown.measured(f'Reused, {fault}'), 'tokens')}" for fault in FAULTS]
    return (
        f"the judged request of the mended agent reused {_served(shown)}; with the faults, "
        f"{'; '.join(found)}."
    )


def _served(shown: Shown) -> str:
    """Print what LMCache served of the mended agent's judged request."""
    served = shown.headline("tokens")
    if "lmcache_l1" not in served:
        raise NotShownError("tokens")
    return tokens(served["lmcache_l1"])


@WATCH.ask(
    "Somebody makes LMCache's chunk sixteen times as large, and no prompt changes. Why is less reused, and "
    "who can say what has happened?",
    reason="Reuse is rounded down to whole chunks, so on average half a chunk is lost at the end of what "
    "is shared; with larger chunks that is more. No prompt shows it. The baseline does: it knows the chunk "
    "of the deployment that it was made on, and says that this one is another.",
    where=WATCH.prediction(f"Reused, {FAULTS[-1]}"),
)
def _wider_chunk(shown: Shown) -> str:
    wide = sequence(shown.measured(f"Reused, {FAULTS[-1]}")[:1], "tokens")
    return f"the judged request reused {wide} with the larger chunk, and {_served(shown)} with the usual one."
