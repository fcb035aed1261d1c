"""Lesson 2. Ask twice, prefill once.

Question      Two questions about one manual: how much of the second prompt is prefilled again?
You will see  the reused tokens predicted, then measured to the token; the TTFT that reuse buys; and that it
              is vLLM's own prefix cache, not LMCache, that serves a question asked right after another.
Time          1 minute.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 1. *Prefill*, *block*, *chunk*, *hit* and the rest: README.md, "Words we use".
"""

# %% [markdown]
# ## 1. The workload
# A long manual and short questions. The manual leads and the question trails, so that two prompts agree
# for as long as they can. A KV entry depends on every token before it: with the question in front,
# nothing after it could be reused.

# %%
from dataclasses import dataclass

import pytest

from fixtures.benchmarks import FirstToken
from fixtures.corpus import Read
from fixtures.graphs import Reader
from lmcache_tutorial.ask import Asker
from lmcache_tutorial.config import LessonSizes, Thresholds
from lmcache_tutorial.corpus import Document, fresh
from lmcache_tutorial.metrics import hit_rate, total, ttft_drop
from lmcache_tutorial.predict import engine_reusable_tokens, shared_prefix_tokens
from lmcache_tutorial.records import Turn
from lmcache_tutorial.results import LessonReport
from lmcache_tutorial.stack import Stack
from lmcache_tutorial.tracing import Traces

MANUAL = Document("lmcache-source", size="long", seed=2)
FIRST, SECOND = "Which class stores a chunk?", "What decides which chunk is evicted first?"


@dataclass(frozen=True)
class Pair:
    """One round: the same manual asked twice, and what the second ask was predicted to reuse [tokens]."""

    cold: Turn
    warm: Turn
    predicted: int


# %% [markdown]
# ## 2. The prediction
# The engine keeps its KV in blocks and reuses only whole ones, so the shared prefix is rounded *down*. The
# shared prefix itself is no guess: the server renders both prompts with its chat template and returns their
# token ids, and you count how far they agree. Write your own number down before you look.


# %%
def predicted_reuse(stack: Stack, manual: str) -> int:
    first, second = (stack.tokenize(Reader.messages(manual, question)) for question in (FIRST, SECOND))
    shared = shared_prefix_tokens(first, second)
    return engine_reusable_tokens(shared, prompt=len(second), block=stack.block_tokens)


# %% [markdown]
# ## 3. The measurement
# Every round makes the manual new with a nonce in front, so that the first ask is cold: `start="cold"` fails
# the run if even one token was reused. The second ask follows when LMCache has finished storing. Cold and
# warm alternate, so that a machine which slows down half way slows both.


# %%
@pytest.fixture(scope="module")
def pairs(ask: Asker, reader: Reader, read: Read, stack: Stack, sizes: LessonSizes) -> tuple[Pair, ...]:
    """Seven rounds of a cold and a warm ask."""

    def one_round() -> Pair:
        manual = fresh(read(MANUAL))
        cold = ask(reader.graph, {"manual": manual, "question": FIRST}, start="cold")
        warm = ask(reader.graph, {"manual": manual, "question": SECOND}, start="engine")
        return Pair(cold, warm, predicted_reuse(stack, manual))

    return tuple(one_round() for _ in range(sizes.rounds))


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson2_a_second_ask_reuses_every_whole_block(pairs: tuple[Pair, ...], report: LessonReport) -> None:
    measured = [pair.warm.tokens.reused for pair in pairs]
    predicted = [pair.predicted for pair in pairs]
    report.compare("Reused tokens of the second ask", predicted=predicted, measured=measured)
    assert min(predicted) > 0
    assert measured == predicted


def test_lesson2_the_hit_rate_is_above_the_bar(
    pairs: tuple[Pair, ...], report: LessonReport, bars: Thresholds
) -> None:
    rate = hit_rate(pair.warm.tokens for pair in pairs)
    report.headline(hit_rate=rate)
    assert rate > bars.min_hit_rate


def test_lesson2_the_time_to_first_token_drops_by_more_than_the_bar(
    pairs: tuple[Pair, ...], report: LessonReport, bars: Thresholds
) -> None:
    cold = [pair.cold.call.ttft_s for pair in pairs]
    warm = [pair.warm.call.ttft_s for pair in pairs]
    drop = ttft_drop(cold, warm)
    report.headline(ttft_drop=drop)
    report.rounds("TTFT", {"first ask, cold": cold, "second ask, warm": warm})
    assert drop.low > bars.min_ttft_drop


# %% [markdown]
# Who served those tokens? LMCache runs beside the engine and has stored the manual too, but vLLM asks its own
# cache first and takes from the connector only what it lacks. On a hot engine LMCache adds nothing; what it
# is for shows when the engine's cache is gone, and that is Lesson 3.


# %%
def test_lesson2_the_engines_own_prefix_cache_served_them_all(
    pairs: tuple[Pair, ...], report: LessonReport, traces: Traces
) -> None:
    served = [pair.warm.tokens for pair in pairs]
    report.headline(tokens=total(served))
    report.trace("one second ask", pairs[0].warm.trace_id, traces.of(pairs[0].warm))
    assert all(tokens.engine > 0 for tokens in served)
    assert [tokens.lmcache for tokens in served] == [0] * len(served)


# %% [markdown]
# A benchmark compares runs; it is not a claim. It runs on request only: `pytest --benchmark-only -k lesson2`.


# %%
@pytest.mark.benchmark(group="lesson2")
def test_lesson2_benchmark_warm_ttft(first_token: FirstToken, read: Read) -> None:
    first_token.benchmark(read(MANUAL), warm=True)


# %% [markdown]
# ## 5. Exercises
# 1. Swap the two messages in `Reader.messages`, so that the question leads. What do you predict now?
# 2. Make `SECOND` equal to `FIRST`. The whole prompt is known: why is a last piece still prefilled?
# 3. Give `MANUAL` the size `"short"`. Which of the two bars falls first, and why?
