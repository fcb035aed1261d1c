"""Lesson 2. Ask twice, prefill once.

Question      Two questions about one manual: how much of the second prompt is prefilled again?
You will see  where two prompts part, drawn; the reused tokens predicted, then measured to the token; the
              TTFT that reuse buys; and that it is vLLM's own prefix cache, not LMCache, that serves a
              question asked right after another.
Words         block, chunk, prefix cache, hit, hit rate, warm, TTFT drop, bar, Segment.
Time          from the reference run.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 1: a cold prompt is prefilled whole.
"""

# %% [markdown]
# ## 1. The workload
# A long manual and short questions. The manual leads and the question trails, so that two prompts agree for
# as long as they can.
#
# Why from the front? A token's KV is computed from the token *and all those before it*. The same word behind
# another beginning has another KV, so a cache may give back KV only up to the first token that differs.

# %%
from dataclasses import dataclass

import pytest

from lmcache_tutorial.asking.ask import Asker
from lmcache_tutorial.gate.decide import known, lies_above
from lmcache_tutorial.graphs.benchmark import FirstToken
from lmcache_tutorial.graphs.reader import Reader
from lmcache_tutorial.lessons.progress import Progress
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.prompts.layout import Segment, divergence, lay_out
from lmcache_tutorial.quantities.predict import engine_reusable_tokens, shared_prefix_tokens
from lmcache_tutorial.quantities.records import Turn
from lmcache_tutorial.quantities.sources import source
from lmcache_tutorial.quantities.statistics import hit_rate, total, ttft_drop
from lmcache_tutorial.report.results import LessonReport
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.settings.profiles import LessonSizes
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.traces.record import Traces

MANUAL = Document("lmcache-source", size="long", seed=2)
FIRST, SECOND = "Which class stores a chunk?", "What decides which chunk is evicted first?"


@dataclass(frozen=True)
class Pair:
    """One round: the same manual asked twice, and what the second ask was predicted to reuse [tokens]."""

    manual: str
    cold: Turn
    warm: Turn
    predicted: int


# %% [markdown]
# ## 2. The prediction
# The engine keeps its KV in *blocks* and reuses only whole ones, so the shared prefix is rounded *down*. The
# shared prefix itself is no guess: the server renders both prompts with its chat template and returns their
# token ids, and you count how far they agree. The last token is always computed, since its output is the
# first new one. (LMCache keeps *chunks*, which are often larger: Lesson 3 counts them.) Write your own number
# down before you look.


# %%
def predicted_reuse(stack: Stack, manual: str) -> int:
    first, second = (stack.tokenize(Reader.messages(manual, question)) for question in (FIRST, SECOND))
    shared = shared_prefix_tokens(first, second)
    return engine_reusable_tokens(shared, prompt=len(second), block=stack.block_tokens)


# %% [markdown]
# ## 3. The measurement
# `start=` states what the caches hold when a turn begins, and the turn proves it: `start="cold"` fails the
# run if even one token was reused, `start="engine"` if the engine's own cache gave none. Without `start=`
# nothing is stated, and nothing is checked. The second ask follows when LMCache has finished storing. Cold
# and warm alternate, so that a machine which slows down half way slows both.


# %%
@pytest.fixture(scope="module")
def pairs(
    ask: Asker, reader: Reader, read: Read, stack: Stack, sizes: LessonSizes, progress: Progress
) -> tuple[Pair, ...]:
    """Seven rounds of a cold and a warm ask."""

    def one_round() -> Pair:
        manual = fresh(read(MANUAL))
        cold = ask(reader.graph, {"manual": manual, "question": FIRST}, start="cold")
        warm = ask(reader.graph, {"manual": manual, "question": SECOND}, start="engine")
        return Pair(manual, cold, warm, predicted_reuse(stack, manual))

    rounds = progress.rounds(range(sizes.rounds), sizes.rounds, "lesson 2: round")
    return tuple(one_round() for _ in rounds)


# %% [markdown]
# ## 4. The claims
# First the picture of it, from the two prompts of the first round. A `Segment` is a named piece of a prompt;
# laid out, every token has the segment that it comes from. Left of the line both prompts are the same, and
# whole blocks can be reused. Right of it nothing can, not even words that stand in both.


# %%
@pytest.mark.usefixtures("rendering", "chunks")
def test_lesson2_two_prompts_part_in_the_question(
    pairs: tuple[Pair, ...], stack: Stack, report: LessonReport
) -> None:
    manual = Segment("manual", "static", pairs[0].manual)
    questions = [Segment("question", "turn", text, "user") for text in (FIRST, SECOND)]
    first, second = (lay_out([manual, question], stack.renderer) for question in questions)
    report.prefix("Two prompts that part", first, second, block=stack.block_tokens, chunk=stack.chunk_tokens)
    parted = divergence(first, second)
    assert parted is not None
    assert parted.segment == "question"


def test_lesson2_a_second_ask_reuses_every_whole_block(pairs: tuple[Pair, ...], report: LessonReport) -> None:
    measured = [pair.warm.tokens.reused for pair in pairs]
    predicted = [pair.predicted for pair in pairs]
    report.compare("Reused tokens of the second ask", predicted=predicted, measured=measured)
    assert min(predicted) > 0
    assert measured == predicted


# %% [markdown]
# A **bar** is what a figure must exceed, or the run fails: 90 % for a hit rate and 70 % for the drop of the
# TTFT, unless you set others. A time passes by the lower end of its 95 % interval. If the bar lies *within*
# the interval, seven rounds on this machine cannot tell, and the claim is *undecided*: neither passed nor
# failed.


# %%
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
    arms = {"first ask, cold": cold, "second ask, warm": warm}
    by = {"first ask, cold": "computed", "second ask, warm": source(pairs[0].warm.tokens)}
    report.rounds("TTFT", arms, served_by=by)
    assert lies_above(drop, bars.min_ttft_drop, scatter=cold)


# %% [markdown]
# Who served those tokens? LMCache runs beside the engine and has stored the manual too, but vLLM asks its own
# cache first and takes from LMCache only what it lacks. While the engine's own cache holds the prompt,
# LMCache adds nothing. It helps when that cache is gone: Lesson 3.


# %%
@pytest.mark.usefixtures("whose_tokens")
def test_lesson2_the_engines_own_prefix_cache_served_them_all(
    pairs: tuple[Pair, ...], report: LessonReport, traces: Traces
) -> None:
    served = [pair.warm.tokens for pair in pairs]
    report.headline(tokens=total(served))
    report.trace("one second ask", pairs[0].warm.trace_id, traces.of(pairs[0].warm))
    told = known(served)
    nothing, found = [0] * len(told), [tokens.lmcache for tokens in told]
    report.compare("Of them from LMCache", predicted=nothing, measured=found)
    assert all(tokens.engine > 0 for tokens in told)
    assert found == nothing


# %% [markdown]
# A benchmark compares runs; it is not a claim. It runs on request only: `pytest --benchmark-only -k lesson2`.


# %%
@pytest.mark.benchmark(group="lesson2")
def test_lesson2_benchmark_warm_ttft(first_token: FirstToken, read: Read) -> None:
    first_token.benchmark(read(MANUAL), start="engine")


# %% [markdown]
# ## 5. Exercises
# In `tutorial_tests/exercises/`; a docstring says what to change. Stuck? `lmcache-tutorial hint 2.1`
# - `ex2_1_count_what_is_reused.py`: write the prediction yourself
# - `ex2_2_ask_so_that_it_is_reused.py`: arrange question and manual, so that the manual is reused
