"""Lesson 3. LMCache survives the engine.

Question      The engine's own cache serves a repeated prompt already: what does LMCache add?
You will see  the same prompt served by nobody, by the engine's cache and by LMCache; an engine that restarts
              and finds its KV again; the same restart without LMCache; and how equal the answers are.
Words         arm, connector, second tier.
Time          from the reference run; it holds two engine starts.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 2: the engine reuses whole blocks.
"""

# %% [markdown]
# ## 1. The workload
# One prompt, asked three times a round: cold, from the engine's cache, from LMCache. These are the lesson's
# *arms*, kinds of asking that are compared. A last question comes after the engine has been restarted.

# %%
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from lmcache_tutorial.asking.ask import Asker
from lmcache_tutorial.gate.decide import lies_above
from lmcache_tutorial.graphs.benchmark import FirstToken
from lmcache_tutorial.graphs.reader import Reader
from lmcache_tutorial.lessons.progress import Progress
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities import predict
from lmcache_tutorial.quantities.records import Turn
from lmcache_tutorial.quantities.statistics import hit_rate, total, ttft_drop
from lmcache_tutorial.report.results import LessonReport
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.settings.profiles import LessonSizes
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.traces.record import Traces

MANUAL = Document("lmcache-source", size="long", seed=3)
ARMS = ("engine", "cold")  # what LMCache's answer is compared with
ROUNDING = 1e-3  # of a log-probability in float32; sums of another order move it by far less
QUESTION, AFTER_RESTART = "Which class stores a chunk?", "What decides which chunk is evicted first?"
SERVED_BY = {
    "cold": "computed",
    "engine's cache": "engine",
    "LMCache, engine emptied": "lmcache_l1",
    "LMCache, engine restarted": "lmcache_l1",
    "no LMCache, engine restarted": "computed",
}
Rounds = tuple["Round", ...]
Alone = Callable[[], AbstractContextManager[None]]  # restarts the engine without LMCache, and then with it

# %% [markdown]
# ## 2. The prediction
# LMCache keeps whole *chunks*, the engine whole *blocks*. Say that 1,000 tokens are shared, a block has 32
# and a chunk 64: the engine gives back 31 blocks, which are 992 tokens, and LMCache 15 chunks, which are 960.
# The two round down differently, and LMCache may give back a little less.
#
# That matters here, for this lesson compares answers bit by bit, and both must have reused the *same* tokens.
# Cut the manual at its end until both predictions agree.


# %%
def same_reuse(stack: Stack, manual: str) -> tuple[str, int]:
    """Shorten a manual until both caches would reuse the same tokens of its prompt; return both."""
    block, chunk = stack.block_tokens, stack.chunk_tokens
    while True:
        prompt = len(stack.tokenize(Reader.messages(manual, QUESTION)))
        engine = predict.engine_reusable_tokens(prompt, prompt, block)
        if engine == predict.lmcache_reusable_tokens(prompt, prompt, chunk):
            return manual, engine
        manual = manual[: -max(1, prompt % chunk)]


def reuse_after_restart(stack: Stack, manual: str) -> int:
    """Predict what another question reuses when only LMCache still holds the manual."""
    first, second = (stack.tokenize(Reader.messages(manual, q)) for q in (QUESTION, AFTER_RESTART))
    shared = predict.shared_prefix_tokens(first, second)
    return predict.lmcache_reusable_tokens(shared, len(second), stack.chunk_tokens)


# %% [markdown]
# ## 3. The measurement
# The three arms of a round run on one engine and take turns. `start="lmcache"` empties the engine's own cache
# first, and the call itself proves that it was empty: not one token may come from it, and some must come from
# LMCache. What the engine lacks it asks of LMCache through its *connector*, the part of vLLM that fetches KV
# from outside.
#
# The restarts need other engines, so they follow, one engine at a time. After the rounds the engine, which
# knows the manuals by heart, is restarted without LMCache: the control. Then it is restarted with LMCache.
# Both new engines are asked about all manuals of the rounds, which they have never seen: their caches are
# empty, so these asks need no `start=`.


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


def three_arms(ask: Asker, reader: Reader, manual: str) -> Round:
    """Ask about a manual cold, from the engine's cache, and from LMCache."""
    manual, predicted = same_reuse(ask.stack, manual)
    state = {"manual": manual, "question": QUESTION}
    cold = ask(reader.graph, state, start="cold")
    engine = ask(reader.graph, state, start="engine")
    return Round(manual, cold, engine, ask(reader.graph, state, start="lmcache"), predicted)


@pytest.fixture(scope="module")
def rounds(
    emptying: None,
    room_in_lmcache: None,
    ask: Asker,
    reader: Reader,
    read: Read,
    sizes: LessonSizes,
    progress: Progress,
) -> Rounds:
    """Seven rounds of three arms on one engine; LMCache has to keep all of their prompts."""
    turns = progress.rounds(range(sizes.rounds), sizes.rounds, "lesson 3: round")
    return tuple(three_arms(ask, reader, fresh(read(MANUAL))) for _ in turns)


@pytest.fixture(scope="module")
def restart(
    rounds: Rounds, ask: Asker, reader: Reader, stack: Stack, alone: Alone, progress: Progress
) -> Restart:
    """The engine restarted without LMCache, then with it; each is asked about the manuals of the rounds."""

    def ask_all(what: str) -> tuple[Turn, ...]:
        states = [{"manual": one.manual, "question": AFTER_RESTART} for one in rounds]
        return tuple(ask(reader.graph, state) for state in progress.rounds(states, len(states), what))

    with alone():
        without = ask_all("lesson 3: without LMCache, manual")
    restarted = ask_all("lesson 3: with LMCache, manual")
    return Restart(without, restarted, tuple(reuse_after_restart(stack, one.manual) for one in rounds))


def by_arm(rounds: Rounds, restart: Restart) -> dict[str, Sequence[Turn]]:
    """The turns of every arm, which `SERVED_BY` names in this order."""
    asked = [[one.cold for one in rounds], [one.engine for one in rounds], [one.lmcache for one in rounds]]
    return dict(zip(SERVED_BY, [*asked, restart.restarted, restart.without], strict=True))


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson3_lmcache_serves_the_predicted_tokens(
    rounds: Rounds, restart: Restart, report: LessonReport
) -> None:
    emptied = [one.lmcache.tokens.lmcache for one in rounds]
    restarted = [turn.tokens.lmcache for turn in restart.restarted]
    predicted = [one.predicted for one in rounds]
    report.compare("From LMCache, engine emptied", predicted=predicted, measured=emptied)
    report.compare("From LMCache, engine restarted", predicted=restart.predicted, measured=restarted)
    assert min(*predicted, *restart.predicted) > 0
    assert emptied + restarted == predicted + list(restart.predicted)


# %% [markdown]
# Everything comes from LMCache's *memory* here. A *second tier* behind it, files or a server of their own,
# would hold what the memory has no room for; it stays empty in this lesson.


# %%
def test_lesson3_lmcache_alone_is_above_the_hit_rate_bar(
    rounds: Rounds, restart: Restart, report: LessonReport, traces: Traces, bars: Thresholds
) -> None:
    windows = {arm: [turn.tokens for turn in turns] for arm, turns in by_arm(rounds, restart).items()}
    report.served("Who served the prompt", windows)
    report.trace("after the restart", restart.restarted[0].trace_id, traces.of(restart.restarted[0]))
    tokens = total(windows["LMCache, engine emptied"] + windows["LMCache, engine restarted"])
    report.headline(hit_rate=hit_rate([tokens]), tokens=tokens)
    assert tokens.engine == 0
    assert tokens.lmcache / tokens.prompt > bars.min_hit_rate


def test_lesson3_ttft_from_lmcache_drops_by_more_than_the_bar(
    rounds: Rounds, restart: Restart, report: LessonReport, bars: Thresholds
) -> None:
    times = {arm: [turn.call.ttft_s for turn in turns] for arm, turns in by_arm(rounds, restart).items()}
    report.rounds("TTFT", times, served_by=SERVED_BY)
    drop = ttft_drop(times["cold"], times["LMCache, engine emptied"])
    report.headline(ttft_drop=drop)
    assert lies_above(drop, bars.min_ttft_drop, scatter=times["cold"])


# %% [markdown]
# The control. An engine's own cache knows its prompts well, until the engine restarts: a deployment, a crash,
# a node that scales down and up. Then, without LMCache, every user pays the full prefill once more; with it,
# nobody does. Both times are from new engines that were asked the same.


# %%
def test_lesson3_without_lmcache_the_same_restart_costs_a_full_prefill(
    rounds: Rounds, restart: Restart, report: LessonReport
) -> None:
    before = [one.engine.tokens.engine for one in rounds]
    after = [turn.tokens.reused for turn in restart.without]
    report.compare("Reused without LMCache, engine restarted", predicted=[0] * len(after), measured=after)
    assert min(before) > 0
    assert after == [0] * len(rounds)


def test_lesson3_with_lmcache_the_restart_costs_less_by_more_than_the_bar(
    restart: Restart, bars: Thresholds
) -> None:
    without = [turn.call.ttft_s for turn in restart.without]
    drop = ttft_drop(without, [turn.call.ttft_s for turn in restart.restarted])
    assert lies_above(drop, bars.min_ttft_drop, scatter=without)


# %% [markdown]
# Is it the same answer? LMCache must give back what the engine would have kept: the same tokens with the
# same log-probabilities, bit for bit.
#
# A cold prefill is a harder judge. Reuse changes the *shape* of the prefill, and for another shape a library
# may add the same numbers in another order, so that sums round differently. The engine's own cache has this
# effect too. How far it moves the first token, which the prefill alone decides, must be the same for both;
# and in float32 that is next to nothing.


# %%
def moved(rounds: Sequence[Round], arm: str) -> list[float]:
    """How far each round's first log-probability lies from the cold one."""
    return [abs(getattr(one, arm).call.logprobs[0] - one.cold.call.logprobs[0]) for one in rounds]


def test_lesson3_lmcache_gives_the_answer_of_the_engines_own_reuse(
    rounds: Rounds, report: LessonReport
) -> None:
    same = {arm: sum(one.lmcache.call.same_answer(getattr(one, arm).call) for one in rounds) for arm in ARMS}
    title, everywhere = "Same answer as the engine's own", [len(rounds)]
    report.compare(title, predicted=everywhere, measured=[same["engine"]], unit="rounds")
    for arm, count in same.items():
        report.measure("Same answer, bit for bit", arm=arm, values=[count], unit="rounds")
    assert [same["engine"]] == everywhere


def test_lesson3_lmcache_moves_the_cold_answer_no_further_than_the_engines_own_reuse(
    rounds: Rounds, stack: Stack, report: LessonReport
) -> None:
    found = {arm: moved(rounds, arm) for arm in ("engine", "lmcache")}
    for arm, distances in found.items():
        report.measure("First log-probability, from the cold one", arm=arm, values=distances, unit="nats")
    assert found["lmcache"] == found["engine"]
    assert stack.config.dtype != "float32" or max(found["lmcache"]) < ROUNDING


# %%
@pytest.mark.benchmark(group="lesson3")
def test_lesson3_benchmark_lmcache_ttft(first_token: FirstToken, read: Read) -> None:
    first_token.benchmark(read(MANUAL), start="lmcache")


# %% [markdown]
# ## 5. Exercises
# In `tutorial_tests/exercises/`; a docstring says what to change. Stuck? `lmcache-tutorial hint 3.1`
# - `ex3_1_who_serves_it_next.py`: predict who serves a prompt, four times
# - `ex3_2_which_engine_lost_lmcache.py`: find the engine that came back without LMCache
