"""Lesson 8. What it costs, and what breaks.

Question      When does LMCache not pay, what does it cost then, and what happens when it fails?
You will see  three workloads that gain nothing; what storing costs; the length from which loading pays; a
              tier so slow that it loses, alone and under load; and a cache server that is killed, and
              paused, while requests are under way.
Words         break-even, heartbeat, namespace.
Time          from the reference run; it holds one engine start.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 6: a tier behind LMCache's memory; lesson 7: a salt.
"""

# %% [markdown]
# ## 1. The workload
# First the honest part of every benchmark: workloads that must gain *nothing*, and may lose, for every prompt
# is looked up first (reports/findings). Prompts that share nothing, or are shorter than a chunk; documents
# that the engine's own cache holds. Then longer ones: which are worth loading? At last the server fails.

# %%
from dataclasses import replace
from statistics import median

import pytest

from lmcache_tutorial.asking.known import QUESTIONS, KnownAnswers
from lmcache_tutorial.asking.trial import RECOVERY_LIMIT_S, Trial, undergo
from lmcache_tutorial.gate.decide import decided, lies_above, lies_within
from lmcache_tutorial.graphs.beside import Beside, OpenBeside
from lmcache_tutorial.graphs.cutting import cut_to_chunks
from lmcache_tutorial.graphs.lengths import Lengths, Storing, ask_lengths, ask_storing, ask_together
from lmcache_tutorial.graphs.reader import Reader
from lmcache_tutorial.lessons.progress import Progress
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities.break_even import break_even_bytes_s, break_even_tokens, near_break_even
from lmcache_tutorial.quantities.memories import GIB
from lmcache_tutorial.quantities.statistics import LOOKS, ratio_of_medians, stays_above
from lmcache_tutorial.report.results import Chart, LessonReport
from lmcache_tutorial.settings.profiles import LessonSizes
from lmcache_tutorial.settings.topology import StackConfig, TierConfig
from lmcache_tutorial.stack.faults import killed, paused
from lmcache_tutorial.stack.restart import restart_caches
from lmcache_tutorial.stack.stack import Stack

MANUAL = Document("lmcache-source", size="long", seed=8)
QUESTION = "Which class stores a chunk?"
HALF, FOUR, SHORT, MEDIUM = "half a chunk", "4 chunks", "8 chunks", "a document"
CHUNKS = {HALF: 0.5, "1 chunk": 1, "2 chunks": 2, FOUR: 4, SHORT: 8}  # prompts that are cut to so many
COMPUTED, LOADED = (HALF, FOUR), (FOUR, MEDIUM)  # the lengths that a line goes through
NOT_STORED = {"kv_transfer_params": {"lmcache.max_offload_tokens": 0}}  # a request's wish to LMCache
SLOWER, NEAR = 2, 1.5  # how many times too slow the slow tier is; how many times as long is still near
AT_ONCE = 4  # requests that come together
TOGETHER = f"{AT_ONCE} at once, {FOUR} each"
IN_TURN = ("--l2-prefetch-max-in-flight", "1")  # LMCache's: it loads for one request at a time
CLOSE, MORE = 0.15, 0.05  # how near a time must come to its prediction; what a store may cost beyond it
KILLED, PAUSED, PAUSED_LONG = "killed", "paused, shorter than a heartbeat", "paused, longer"
Trials = dict[str, Trial]
Texts = dict[str, str]
Rounds = dict[str, list[float]]  # an arm -> its times, one a round [s]


# %% [markdown]
# ## 2. The prediction
# A prefill takes some time for every token, and a load takes a little for every token and something once: the
# look-up, and the way there and back. So there is a *break-even*: a length from which loading takes less time
# than computing. It follows from two lines, each drawn through two lengths.
#
# How slow may a tier be? It must bring a token's KV while the engine could have computed it. The model's KV
# bytes a token over the seconds a token give the bytes a second that it needs. Write down what you expect of
# your disk and your network.


# %%
def break_even(lengths: Lengths) -> float:
    """The length from which loading pays [tokens]."""
    return break_even_tokens(lengths.line("computed", COMPUTED), lengths.line("loaded", LOADED))


def cost_of_storing(lengths: Lengths) -> float:
    """How many times as long a stored prompt may take: longer by a load's time, and by `MORE`."""
    return 1 + 1 / lengths.gain(SHORT).value + MORE


def with_slow_tier(stack: Stack) -> StackConfig:
    """The session's stack, and a tier that is slower than the engine; nobody uses it yet."""
    assert stack.workload
    needed = break_even_bytes_s(stack.kv_bytes_per_token, 1 / stack.workload.prefill_tokens_s)
    holds = 400 * stack.chunk_tokens * stack.kv_bytes_per_token / GIB  # chunks: all of the lesson's
    told = {"type": "mock", "max_size_gb": holds, "mock_bandwidth_gb": needed / SLOWER / GIB}
    return replace(stack.config, tiers=(TierConfig("file_tier", adapter=tuple(told.items())),))


# %% [markdown]
# ## 3. The measurement
# A prompt of some chunks is the beginning of the document, as long as it takes. For a *loaded* answer the
# engine's own cache is emptied first; for the slow tier LMCache's memory too. The tier is LMCache's `mock`,
# which keeps KV in memory and waits as long as its bandwidth says. A request can ask LMCache not to store it:
# so cold requests that are stored and others that are not can take turns on one engine.


# %%
@pytest.fixture(scope="module")
def lab(stack: Stack, open_beside: OpenBeside) -> Beside:
    """A stack of the lesson's own. A chunk that is not stored is no error: some are not meant to be."""
    lab = open_beside(with_slow_tier(stack))
    lab.stack.may_drop = True
    return lab


@pytest.fixture(scope="module")
def texts(lab: Beside, read: Read, sizes: LessonSizes) -> Texts:
    """The manual, cut so that each prompt ends a few tokens after a chunk: what is loaded is nearly all."""
    chunks = CHUNKS | {MEDIUM: max(9, sizes.medium // lab.stack.chunk_tokens - 1)}
    return {name: cut_to_chunks(lab.stack, read(MANUAL), QUESTION, count) for name, count in chunks.items()}


@pytest.fixture(scope="module")
def lengths(lab: Beside, texts: Texts, sizes: LessonSizes, progress: Progress) -> Lengths:
    """Prompts of every length: cold, and from LMCache's memory."""
    rounds = progress.rounds(range(sizes.rounds), sizes.rounds, "lesson 8: lengths, round")
    return ask_lengths(lab, texts, QUESTION, rounds)


@pytest.fixture(scope="module")
def storing(lab: Beside, lengths: Lengths, texts: Texts, progress: Progress) -> Storing:
    """Cold prompts, not stored and stored, until lesson 4's sequential test can answer."""
    most, count = cost_of_storing(lengths), LOOKS[-1]
    rounds = progress.rounds(range(count), count, "lesson 8: storing, round", at_most=True)
    return ask_storing(lab, (texts[SHORT], QUESTION), NOT_STORED, rounds, most)


@pytest.fixture(scope="module")
def slow(lab: Beside, storing: Storing, texts: Texts, sizes: LessonSizes, progress: Progress) -> Lengths:
    """One of the lengths again, from the slow tier."""
    restart_caches(lab.stack, replace(lab.stack.config.cache, tiers=(0,)))
    rounds = progress.rounds(range(sizes.rounds), sizes.rounds, "lesson 8: slow tier, round")
    return ask_lengths(lab, {SHORT: texts[SHORT]}, QUESTION, rounds, memory=False)


@pytest.fixture(scope="module")
def together(lab: Beside, slow: Lengths, texts: Texts, sizes: LessonSizes, progress: Progress) -> Rounds:
    """Four requests at once: computed, and from the slow tier, which loads for one at a time."""
    restart_caches(lab.stack, replace(lab.stack.config.cache, arguments=IN_TURN))
    rounds = progress.rounds(range(sizes.rounds), sizes.rounds, "lesson 8: together, round")
    return ask_together(lab, texts[FOUR], QUESTION, rounds, at_once=AT_ONCE)


@pytest.fixture(scope="module")
def trials(known_answers: None, lab: Beside, together: Rounds, texts: Texts) -> Trials:
    """The cache server killed, and paused for less and for more than a heartbeat, under four requests."""
    own = replace(lab.stack.config.cache, tiers=(), shared_memory=False, arguments=())
    restart_caches(lab.stack, own)
    prompts, cache = [Reader.messages(texts[SHORT], one) for one in QUESTIONS], lab.stack.cache
    known = KnownAnswers.of(lab.stack, prompts, wanted=2)
    return {
        KILLED: undergo(known, killed, cache, requests=AT_ONCE),
        PAUSED: undergo(known, paused, cache, hold_s=own.heartbeat_s / 2),
        PAUSED_LONG: undergo(known, paused, cache),
    }


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson8_three_workloads_take_nothing_from_lmcache(
    lengths: Lengths, lab: Beside, texts: Texts, report: LessonReport
) -> None:
    manual = fresh(texts[SHORT])
    engine = [lab(manual, QUESTION), lab(manual, QUESTION)][1:]
    arms = {"no overlap": lengths.computed[MEDIUM], HALF: lengths.loaded[HALF], "engine has it": engine}
    found = {arm: [turn.tokens.lmcache for turn in turns] for arm, turns in arms.items()}
    nothing = {arm: [0] * len(turns) for arm, turns in arms.items()}
    report.compare_arms("From LMCache", predicted=nothing, measured=found)
    columns, by = ["prompt [tokens]", "TTFT [s]", "way"], {"computed": "computed", "loaded": "lmcache_l1"}
    rows = [one for one in lengths.rows() if one[2] == "computed" or one[0] > lab.stack.chunk_tokens]
    report.chart(Chart("Load or compute", "growth", columns, rows, axis=columns[0], served_by=by))
    assert engine[0].tokens.engine > 0
    assert min(turn.tokens.lmcache for turn in lengths.loaded["1 chunk"]) > 0
    assert found == nothing


# %% [markdown]
# What does a store cost the first token? It is a copy, as a load is, in the other direction: so no more than
# a load takes, and a twentieth of the prefill. Each round begins with LMCache emptied.


# %%
def test_lesson8_a_first_token_waits_for_a_store_no_longer_than_predicted(
    storing: Storing, lengths: Lengths, report: LessonReport
) -> None:
    report.rounds("Cold TTFT", storing.arms)
    most, found = cost_of_storing(lengths), median(storing.ratios)
    report.rounds("Stored over not stored", {"at most": [most], "found": [found]}, unit="times")
    assert storing.kept["not stored"] == 0 < storing.kept["stored"]
    assert not decided(stays_above(storing.ratios, most), scatter=storing.arms["not stored"])


# %% [markdown]
# From which length on does loading pay? From the break-even, and not below a chunk: nothing is kept there. On
# a processor it lies below a chunk: every length that is kept pays. Claimed is one and a half times as far.


# %%
def test_lesson8_loading_pays_beyond_the_predicted_length(lengths: Lengths, report: LessonReport) -> None:
    times = {name: lengths.ttft_s(name) for name in ("1 chunk", "2 chunks", SHORT)}  # on no line
    for name, one in times.items():
        report.rounds(f"TTFT, {name}", one, served_by={"computed": "computed", "loaded": "lmcache_l1"})
    even, prompts = break_even(lengths), {name: lengths.prompt_tokens(name) for name in times}
    report.measure("Loading pays from", arm="predicted", values=[min(even, 1e9)], unit="tokens")
    far = [name for name, prompt in prompts.items() if not near_break_even(prompt, even, NEAR)]
    pays = {name: lies_above(lengths.gain(name), 1, scatter=times[name]["computed"]) for name in far}
    assert pays == {name: prompts[name] > even for name in far} != {}


# %% [markdown]
# A tier that brings KV at half the needed rate loses, and by how much is predicted: the time from memory, and
# the bytes over the bandwidth. Under load it is the same: four requests come together, this LMCache loads for
# one at a time, and the last one waits for all the bytes, as it would for the engine to compute all four.


# %%
@pytest.mark.parametrize("size", [SHORT, TOGETHER])
def test_lesson8_a_tier_that_is_too_slow_loses_as_predicted(
    size: str, slow: Lengths, together: Rounds, lengths: Lengths, lab: Beside, report: LessonReport
) -> None:
    times, loads, one = (together, AT_ONCE, FOUR) if size == TOGETHER else (slow.ttft_s(size), 1, size)
    bytes_s = dict(lab.stack.config.tiers[0].adapter)["mock_bandwidth_gb"] * GIB
    tokens, memory_s = lengths.loaded[one][0].tokens, median(lengths.ttft_s(one)["loaded"])
    predicted = memory_s + loads * tokens.lmcache * lab.stack.kv_bytes_per_token / bytes_s
    arms, by = {**times, "predicted": [predicted]}, {"computed": "computed", "loaded": "lmcache_l2"}
    report.rounds(f"With a slow tier, {size}", arms, served_by=by)
    near = ratio_of_medians(times["loaded"], [predicted] * len(times["loaded"]))
    assert all(turn.tokens.lmcache_l2 > turn.tokens.computed for turn in slow.loaded[SHORT])
    assert not lies_above(ratio_of_medians(times["computed"], times["loaded"]), 1, scatter=times["computed"])
    assert lies_within(near.less(1), CLOSE, scatter=times["loaded"])


# %% [markdown]
# Now the cache server is killed, and then paused. Neither tells the engine: only a time limit does, that of
# a request (`lmcache.mp.mq_timeout`, 5 s here, 300 s by default) or of the *heartbeat*, which the connector
# sends every 2 s (10 s by default); a request may wait for more than one of them. KV that was found and does
# not come is computed (`kv_load_failure_policy` is `recompute` here; by default, `fail`, it is an error).
# LMCache 0.5.6 needs `--shm-name ""`: an engine that stores into shared memory as the server dies dies too.


# %%
@pytest.mark.parametrize("name", [KILLED, PAUSED, PAUSED_LONG])
def test_lesson8_a_cache_server_that_fails_loses_no_request(
    name: str, trials: Trials, lab: Beside, report: LessonReport
) -> None:
    trial, took_s = trials[name], trials[name].took_s
    report.rounds(f"The cache server {name}", took_s)
    assert trial.under_way == AT_ONCE
    assert trial.errors == []
    limit_s, mild_s = lab.stack.config.cache.timeout_s, trials[PAUSED].took_s["in flight"]
    assert max(took_s.get("meanwhile", [0])) < limit_s
    assert max(took_s["in flight"]) - max(mild_s) < 3 * limit_s  # two limits, and one to spare
    assert trial.recovered_s < RECOVERY_LIMIT_S


# %% [markdown]
# And were the answers right? Of each prompt the first token was known from a prefill: that is judged. Each
# request had a *namespace* of its own (`cache_salt`), so that it was new to every cache all the same.


# %%
def test_lesson8_every_answer_begins_with_the_right_token(trials: Trials, report: LessonReport) -> None:
    judged = [len(trial.replies) for trial in trials.values()]
    right = [trial.right for trial in trials.values()]
    report.compare("Right answers", predicted=judged, measured=right, unit="answers", sequence=True)
    assert min(judged) > 4
    assert right == judged


# %% [markdown]
# ## 5. Exercises
# In `tutorial_tests/exercises/`; a docstring says what to change. Stuck? `lmcache-tutorial hint 8.1`
# - `ex8_1_store_what_will_pay.py`: store only what will pay
# - `ex8_2_survive_the_cache_server.py`: choose settings that survive a paused and a killed cache server
