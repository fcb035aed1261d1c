"""Lesson 3. LMCache survives the engine.

Question      The engine's own cache serves a repeated prompt already: what does LMCache add?
You will see  the same prompt served by nobody, by the engine's cache and by LMCache; an engine that restarts
              and finds its KV again; the same restart without LMCache; and answers equal to the last bit.
Time          2 minutes; most of it goes into two engine starts.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 2: the engine reuses whole blocks.
"""

# %% [markdown]
# ## 1. The workload
# One prompt, asked three times a round: cold, from the engine's cache, from LMCache. A last question comes
# after the engine has been restarted.

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
from lmcache_tutorial.predict import engine_reusable_tokens, lmcache_reusable_tokens, shared_prefix_tokens
from lmcache_tutorial.records import Turn
from lmcache_tutorial.results import LessonReport
from lmcache_tutorial.stack import Stack
from lmcache_tutorial.tracing import Traces

MANUAL = Document("lmcache-source", size="long", seed=3)
QUESTION, AFTER_RESTART = "Which class stores a chunk?", "What decides which chunk is evicted first?"
CONTROL_ROUNDS = 3  # counts, no times: each must be 0

# %% [markdown]
# ## 2. The prediction
# LMCache keeps whole *chunks*, the engine whole *blocks*, and a chunk is several blocks. So the two round
# down differently, and LMCache may give back a little less. For a fair comparison of answers both must reuse
# the same tokens: the manual is shortened, a character for each token too many, until both predictions agree.


# %%
def same_reuse(stack: Stack, manual: str) -> tuple[str, int]:
    """Shorten a manual until both caches would reuse the same tokens of its prompt; return both."""
    block, chunk = stack.block_tokens, stack.chunk_tokens
    while True:
        prompt = len(stack.tokenize(Reader.messages(manual, QUESTION)))
        engine = engine_reusable_tokens(prompt, prompt, block)
        if engine == lmcache_reusable_tokens(prompt, prompt, chunk):
            return manual, engine
        manual = manual[: -max(1, prompt % chunk)]


def reuse_after_restart(stack: Stack, manual: str) -> int:
    """Predict what another question reuses when only LMCache still holds the manual."""
    first, second = (stack.tokenize(Reader.messages(manual, q)) for q in (QUESTION, AFTER_RESTART))
    return lmcache_reusable_tokens(shared_prefix_tokens(first, second), len(second), stack.chunk_tokens)


# %% [markdown]
# ## 3. The measurement
# The three arms of a round run on one engine and take turns. `start="lmcache"` empties the engine's own cache
# first, and the call itself proves that it was empty: not one token may come from it.
#
# The restarts need other engines, so they follow, one engine at a time. After the rounds the engine, which
# knows the manuals by heart, is restarted without LMCache: the control. Then it is restarted with LMCache.
# Both new engines are asked about manuals that they have never seen.


# %%
@dataclass(frozen=True)
class Round:
    """One manual: asked cold, from the engine's cache, from LMCache, and what both were to reuse [tokens]."""

    manual: str
    cold: Turn
    engine: Turn
    lmcache: Turn
    predicted: int


@dataclass(frozen=True)
class Restart:
    """The manuals of the rounds on new engines: without LMCache, with it, and what that was to reuse."""

    without: tuple[Turn, ...]
    restarted: tuple[Turn, ...]
    predicted: tuple[int, ...]


@pytest.fixture(scope="module")
def rounds(ask: Asker, reader: Reader, read: Read, stack: Stack, sizes: LessonSizes) -> tuple[Round, ...]:
    """Seven rounds of three arms on one engine."""

    def one_round() -> Round:
        manual, predicted = same_reuse(stack, fresh(read(MANUAL)))
        state = {"manual": manual, "question": QUESTION}
        cold = ask(reader.graph, state, start="cold")
        engine = ask(reader.graph, state, start="engine")
        return Round(manual, cold, engine, ask(reader.graph, state, start="lmcache"), predicted)

    return tuple(one_round() for _ in range(sizes.rounds))


@pytest.fixture(scope="module")
def restart(rounds: tuple[Round, ...], ask: Asker, reader: Reader, stack: Stack) -> Restart:
    """The engine restarted without LMCache, then with it; each is asked about manuals of the rounds."""
    states = [{"manual": one.manual, "question": AFTER_RESTART} for one in rounds]
    with stack.without_lmcache():
        without = tuple(ask(reader.graph, state) for state in states[:CONTROL_ROUNDS])
    restarted = tuple(ask(reader.graph, state) for state in states)
    return Restart(without, restarted, tuple(reuse_after_restart(stack, one.manual) for one in rounds))


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson3_lmcache_serves_the_predicted_tokens(
    rounds: tuple[Round, ...], restart: Restart, report: LessonReport
) -> None:
    emptied = [one.lmcache.tokens.lmcache for one in rounds]
    restarted = [turn.tokens.lmcache for turn in restart.restarted]
    predicted = [one.predicted for one in rounds]
    report.compare("From LMCache, engine emptied", predicted=predicted, measured=emptied)
    report.compare("From LMCache, engine restarted", predicted=restart.predicted, measured=restarted)
    assert min(*predicted, *restart.predicted) > 0
    assert emptied + restarted == predicted + list(restart.predicted)


def test_lesson3_lmcache_alone_is_above_the_hit_rate_bar(
    rounds: tuple[Round, ...], restart: Restart, report: LessonReport, traces: Traces, bars: Thresholds
) -> None:
    emptied, restarted = [one.lmcache.tokens for one in rounds], [turn.tokens for turn in restart.restarted]
    report.served("Who served the prompt", {
        "cold": [one.cold.tokens for one in rounds],
        "engine's cache": [one.engine.tokens for one in rounds],
        "LMCache, engine emptied": emptied,
        "LMCache, engine restarted": restarted,
        "no LMCache, engine restarted": [turn.tokens for turn in restart.without],
    })  # fmt: skip
    report.trace("after the restart", restart.restarted[0].trace_id, traces.of(restart.restarted[0]))
    tokens = total(emptied + restarted)
    report.headline(hit_rate=hit_rate([tokens]), tokens=tokens)
    assert tokens.engine == 0
    assert tokens.lmcache / tokens.prompt > bars.min_hit_rate


def test_lesson3_ttft_from_lmcache_drops_by_more_than_the_bar(
    rounds: tuple[Round, ...], restart: Restart, report: LessonReport, bars: Thresholds
) -> None:
    arms = {
        "cold": [one.cold.call.ttft_s for one in rounds],
        "engine's cache": [one.engine.call.ttft_s for one in rounds],
        "LMCache, engine emptied": [one.lmcache.call.ttft_s for one in rounds],
        "LMCache, engine restarted": [turn.call.ttft_s for turn in restart.restarted],
    }
    report.rounds("TTFT", arms)
    drop = ttft_drop(arms["cold"], arms["LMCache, engine emptied"])
    report.headline(ttft_drop=drop)
    assert drop.low > bars.min_ttft_drop


def test_lesson3_ttft_after_a_restart_drops_by_more_than_the_bar(
    rounds: tuple[Round, ...], restart: Restart, bars: Thresholds
) -> None:
    cold, warm = [one.cold.call.ttft_s for one in rounds], [turn.call.ttft_s for turn in restart.restarted]
    assert ttft_drop(cold, warm).low > bars.min_ttft_drop


# %% [markdown]
# The control. An engine's own cache knows its prompts well, until the engine restarts: a deployment, a crash,
# a node that scales down and up. Then, without LMCache, every user pays the full prefill once more.


# %%
def test_lesson3_without_lmcache_the_same_restart_costs_a_full_prefill(
    rounds: tuple[Round, ...], restart: Restart, report: LessonReport
) -> None:
    before = [one.engine.tokens.engine for one in rounds[:CONTROL_ROUNDS]]
    after = [turn.tokens.reused for turn in restart.without]
    report.compare("Reused without LMCache, engine restarted", predicted=[0] * CONTROL_ROUNDS, measured=after)
    assert min(before) > 0
    assert after == [0] * CONTROL_ROUNDS


# %% [markdown]
# Is it the same answer? A *cold* prefill is no fair judge in bf16: reuse changes the shape of the prefill, so
# sums round differently, with the engine's own cache as well. The question is whether LMCache gives back what
# the engine would have kept: the same tokens with the same log-probabilities, bit for bit. The report shows
# beside it in how many rounds the cold answer agreed.


# %%
def test_lesson3_the_answer_equals_the_engines_own_reuse(
    rounds: tuple[Round, ...], report: LessonReport
) -> None:
    def equal(one: Turn, other: Turn) -> bool:
        return (one.call.text, one.call.logprobs) == (other.call.text, other.call.logprobs)

    same = sum(equal(one.engine, one.lmcache) for one in rounds)
    as_cold = sum(equal(one.cold, one.lmcache) for one in rounds)
    report.compare(
        "Same answer as the engine's cache", predicted=[len(rounds)], measured=[same], unit="rounds"
    )
    report.measure("Same answer as a cold prefill", arm="LMCache", values=[as_cold], unit="rounds")
    assert all(one.engine.call.logprobs for one in rounds)
    assert same == len(rounds)


# %%
@pytest.mark.benchmark(group="lesson3")
def test_lesson3_benchmark_lmcache_ttft(first_token: FirstToken, read: Read, stack: Stack) -> None:
    first_token.benchmark(read(MANUAL), warm=True, prepare=stack.empty_engine_cache)


# %% [markdown]
# ## 5. Exercises
# 1. Run with `--chunk-tokens=256`. How many tokens does LMCache lose to rounding now, and the engine?
# 2. Kill the LMCache server between `rounds` and `restart`. What does the engine do, and what do you lose?
# 3. Ask `AFTER_RESTART` twice after the restart. Who serves the second ask, and why?
