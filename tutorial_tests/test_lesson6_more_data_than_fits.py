"""Lesson 6. More data than fits.

Question      Your documents do not all fit: who still serves a question, and where is the cliff?
You will see  one working set after another asked in turn, each larger than the one before; every hit of every
              tier predicted to the token; what helps and what does not; and a restart of everything.
Words         working set, eviction, watermark, cyclic scan.
Time          from the reference run; it holds two engine starts.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 3: LMCache keeps whole chunks, outside the engine.
"""

# %% [markdown]
# ## 1. The workload
# Documents of one length, asked in turn, and then all of them once more. What is asked again and again is the
# *working set*. Its KV may lie in three places: in the engine's blocks, in LMCache's memory, and in a *tier*
# behind it, here a folder of files. Engine and memory are so small that you can count what they hold: two
# documents, and four. So the lesson opens a stack of its own, whose room is planned from the bytes of one
# token's KV before anything is started. (`lmcache_l1` is LMCache's memory, `lmcache_l2` the tier.)

# %%
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from lmcache_tutorial.gate.decide import lies_above
from lmcache_tutorial.graphs.beside import Beside, InTurn, OpenBeside
from lmcache_tutorial.lessons.progress import Progress
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities.memories import GIB
from lmcache_tutorial.quantities.outcomes import Outcomes, possible
from lmcache_tutorial.quantities.records import Turn
from lmcache_tutorial.quantities.room import Room
from lmcache_tutorial.quantities.sizing import kv_mb_s
from lmcache_tutorial.quantities.statistics import hit_rate, median_interval, total, ttft_drop
from lmcache_tutorial.report.results import LessonReport
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.settings.profiles import LessonSizes
from lmcache_tutorial.settings.topology import StackConfig, TierConfig
from lmcache_tutorial.stack.expected import empty_tiers
from lmcache_tutorial.stack.restart import restart_all, restart_caches
from lmcache_tutorial.stack.stack import Stack

MANUAL, LONG = (Document("lmcache-source", size=size, seed=6) for size in ("kept", "moved"))
QUESTION = "Which class stores a chunk?"
ENGINE, MEMORY, BOUNDED, ALL = 2, 4, 6, 8  # documents: of engine, memory, the bounded tier's bytes, all
FILES, BOUNDED_FILES, SPARE = 0, 1, 2  # the places of the two tiers; how much faster than needed is fast
PRICES = {"memory": 3.0, "files": 0.1}  # of a GiB for a month, in your currency: put your own here
ARMS: dict[str, tuple[int, dict[str, Any]]] = {
    "2 documents": (ENGINE, {}),
    "4 documents": (MEMORY, {}),
    "8 documents": (ALL, {}),
    "8, nothing evicted": (ALL, {"eviction": "noop"}),
    "8, files for 6": (ALL, {"tiers": (BOUNDED_FILES,)}),
    "8, files behind": (ALL, {"tiers": (FILES,)}),
    "8, files, retained": (ALL, {"tiers": (FILES,), "retain": True}),
}
IN_ENGINE, IN_MEMORY, SCAN, NOT_EVICTED, BOUND, BEHIND, RETAINED = ARMS
Sets = dict[str, InTurn]  # by the name of an arm
Expected = dict[str, list[Outcomes]]
Restarted = tuple[list[Turn], list[Turn], list[float]]  # documents, before and after; files read [MB/s]


def small(config: StackConfig, room: Room) -> StackConfig:
    """An engine with room for two documents, LMCache with room for four, files without a bound and with."""
    blocks = room.engine_blocks(ENGINE)
    engine = replace(config.engine, blocks=blocks, context_tokens=(blocks - 1) * room.block_tokens)
    cache = replace(config.cache, memory_gib=room.cache_gib(MEMORY))
    free = TierConfig("file_tier", planned_gib=room.tier_gib(4 * ALL))
    tiers = (free, replace(free, capacity_gib=room.tier_gib(BOUNDED)))
    return replace(config, engines=(engine,), caches=(cache,), tiers=tiers)


# %% [markdown]
# ## 2. The prediction
# What does LMCache do when its memory is full? Nothing, at first: a store that finds no room is dropped. Once
# a second a thread looks. If four fifths of the memory are in use (the *watermark*), it gives up one fifth of
# the chunks, those that were not used for the longest time; of one prompt the last chunks go first.
#
# Now ask eight documents in turn where four have room (a *cyclic scan*). Whatever was not used for the
# longest time is what you ask for next. How many hits do you expect of LMCache? Write it down.


# %%
def predicted(config: StackConfig, room: Room, prompts: list[list[int]]) -> list[Outcomes]:
    """All ways in which the second pass may be served, if LMCache's thread wakes after each question."""
    tiers = empty_tiers(config, room.kv_bytes_per_token)
    return possible(tiers, prompts * 2, ticks=None)[len(prompts) :]


# %% [markdown]
# ## 3. The measurement
# Each arm begins with new documents and empty caches. After each question the lesson waits until the eviction
# thread has done its work, as it would have while your users think. At last long documents are asked, which
# show times better, and asked once more when engine and LMCache were started again, so that only the files
# are still there. LMCache has twice the memory then: a prompt comes back from a tier whole or not at all.


# %%
@pytest.fixture(scope="module")
def room(read: Read, room_for: Callable[[str, str], Room]) -> Room:
    """What one prompt takes of each place."""
    return room_for(read(MANUAL), QUESTION)


@pytest.fixture(scope="module")
def lab(stack: Stack, room: Room, open_beside: OpenBeside) -> Beside:
    """A small stack beside the session's; its caches are meant to be too small."""
    lab = open_beside(small(stack.config, room))
    lab.stack.may_drop = True
    return lab


@pytest.fixture(scope="module")
def measured(lab: Beside, room: Room, read: Read, progress: Progress) -> tuple[Sets, Expected]:
    """Every arm from empty caches, predicted and asked; LMCache starts anew where its settings change."""
    plain, sets, expected = lab.stack.config.cache, Sets(), Expected()
    for name, (documents, changes) in progress.rounds(ARMS.items(), len(ARMS), "lesson 6: working set"):
        if (own := replace(plain, **changes)) != lab.stack.config.cache:
            restart_caches(lab.stack, own)
        manuals = [fresh(read(MANUAL)) for _ in range(documents)]
        expected[name] = predicted(lab.stack.config, room, [lab.prompt(one, QUESTION) for one in manuals])
        lab.stack.empty_engine_cache()
        lab.stack.empty_lmcache()
        sets[name] = lab.in_turn(manuals, QUESTION)
    return sets, expected


@pytest.fixture(scope="module")
def sets(measured: tuple[Sets, Expected]) -> Sets:
    """What every arm did."""
    return measured[0]


@pytest.fixture(scope="module")
def restarted(lab: Beside, sets: Sets, read: Read, sizes: LessonSizes) -> Restarted:
    """Long documents asked cold, and once more when engine and LMCache were started anew."""
    own = lab.stack.config.cache
    restart_caches(lab.stack, replace(own, memory_gib=2 * own.memory_gib))
    manuals = [fresh(read(LONG)) for _ in range(sizes.rounds)]
    cold = [lab(manual, QUESTION) for manual in manuals]
    rates = lab.file_tier(FILES).reading_mb_s()
    restart_all(lab.stack)
    lab.stack.empty_engine_cache()  # of the warm-up
    lab.stack.empty_lmcache()
    return cold, [lab(manual, QUESTION) for manual in manuals], rates


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson6_every_tier_serves_what_was_predicted(
    measured: tuple[Sets, Expected], report: LessonReport
) -> None:
    sets, expected = measured
    served = {name: [turn.tokens for turn in one.second] for name, one in sets.items()}
    report.served("The second pass", served)
    lowest = {name: [outcomes.lowest.reused for outcomes in all_of] for name, all_of in expected.items()}
    found = {name: [tokens.reused for tokens in windows] for name, windows in served.items()}
    report.compare_arms("Reused", predicted=lowest, measured=found)
    assert {turn.tokens.reused for one in sets.values() for turn in one.first} == {0}
    for name, windows in served.items():
        pairs = zip(windows, expected[name], strict=True)
        assert all(tokens in outcomes.splits for tokens, outcomes in pairs), name
    assert found == lowest  # in all arms it is decided how much is reused, in one not from which tier


# %% [markdown]
# There is the cliff, between four documents and eight: each was given up four questions before it is asked
# again, and LMCache serves nothing. A memory that gives up *nothing* (`--eviction-policy noop`) does better,
# for the first documents stay. No policy suits all workloads; least recently used is at its worst in a scan.


# %%
def test_lesson6_a_scan_beyond_the_memory_hits_nothing_and_evicting_nothing_helps(
    sets: Sets, bars: Thresholds
) -> None:
    rates = {name: hit_rate([one.tokens]) for name, one in sets.items()}
    assert min(rates[IN_ENGINE], rates[IN_MEMORY]) > bars.min_hit_rate
    assert rates[SCAN] == 0.0
    assert rates[NOT_EVICTED] > MEMORY / ALL


# %% [markdown]
# A tier behind the memory catches what falls. LMCache writes every chunk there as well, when it is stored, so
# an eviction loses nothing. What comes back from the files stays in memory only until the engine has it
# (`--l2-prefetch-policy default`), or like a new chunk (`retain`). Both reuse the same tokens. But in a scan
# what is retained pushes out what is needed next, and all comes from the files; without it some documents
# stay in memory, where they are faster.


# %%
def test_lesson6_files_behind_the_memory_fill_the_cliff(sets: Sets, bars: Thresholds) -> None:
    behind, retained = sets[BEHIND].tokens, sets[RETAINED].tokens
    assert min(hit_rate([behind]), hit_rate([retained])) > bars.min_hit_rate
    assert behind.lmcache_l1 > retained.lmcache_l1 == 0


# %% [markdown]
# But a tier has a watermark, too: with the bytes of six documents it keeps about four: none is hit in a scan.


# %%
def test_lesson6_a_bounded_tier_keeps_to_its_bound_and_has_a_cliff_of_its_own(
    sets: Sets, room: Room, report: LessonReport
) -> None:
    bound, most = int(room.tier_gib(BOUNDED) * GIB), max(sets[BOUND].tier_bytes)
    report.rounds("Files of the bounded tier", {"bound": [bound / 1e6], "most": [most / 1e6]}, unit="MB")
    assert room.document_bytes < most <= bound
    assert sets[BOUND].tokens.reused == 0


# %% [markdown]
# What does a document cost while nobody asks for it? Its bytes are those of its whole chunks, in memory as in
# files. The prices at the top are examples; the month's price of *your* documents stands in the report.


# %%
def test_lesson6_a_document_takes_the_bytes_that_were_planned(
    sets: Sets, room: Room, report: LessonReport
) -> None:
    in_memory, behind = sets[IN_MEMORY], sets[BEHIND]
    kept = {"memory": in_memory.memory_bytes, "files": behind.tier_bytes[-1] - behind.tier_bytes[0]}
    turns = {"memory": in_memory.first, "files": behind.first}
    planned = {place: sum(room.kept_bytes(t.tokens.prompt) for t in turns[place]) for place in kept}
    for place, size in kept.items():
        report.compare(f"All, in {place}", predicted=[planned[place]], measured=[size], unit="bytes")
        month = size / len(turns[place]) / GIB * PRICES[place]
        report.measure("A document for a month", arm=place, values=[month], unit="of your currency")
    assert kept == planned


# %% [markdown]
# Now all servers are started again. The first question about each document is served from the files.


# %%
def test_lesson6_after_a_restart_of_everything_the_files_serve_the_first_questions(
    restarted: Restarted, room: Room, report: LessonReport, bars: Thresholds
) -> None:
    cold, after = ([turn.tokens for turn in turns] for turns in restarted[:2])
    predicted = [tokens.prompt // room.chunk_tokens * room.chunk_tokens for tokens in cold]
    found = [tokens.lmcache_l2 for tokens in after]
    report.compare("From files, all restarted", predicted=predicted, measured=found, sequence=True)
    report.headline(hit_rate=hit_rate(after), tokens=total(after))
    assert {tokens.reused for tokens in cold} == {0}
    assert found == predicted
    assert hit_rate(after) > bars.min_hit_rate


# %% [markdown]
# A tier pays while it brings KV faster than the engine makes it, and a drop beyond the bar takes several
# times as much: slower files cannot give it, and files twice as fast must. These come from the operating
# system's memory, for they are new; after a real reboot the disk decides (README.md, "On a GPU").


# %%
def test_lesson6_ttft_drops_by_more_than_the_bar_where_the_files_are_fast_enough(
    restarted: Restarted, lab: Beside, report: LessonReport, bars: Thresholds
) -> None:
    cold, after = ([turn.call.ttft_s for turn in turns] for turns in restarted[:2])
    times, by = {"cold": cold, "all restarted": after}, {"cold": "computed", "all restarted": "lmcache_l2"}
    report.rounds("TTFT of long documents", times, served_by=by)
    made = kv_mb_s([one.tokens.computed for one in restarted[0]], cold, lab.stack.kv_bytes_per_token)
    needed, files = median(made) / (1 - bars.min_ttft_drop), median_interval(restarted[2])
    report.rounds("KV that must come", {"needed": [needed], "files": restarted[2]}, unit="MB/s")
    fast, drop = files.low >= SPARE * needed, ttft_drop(cold, after)
    report.headline(ttft_drop=drop)
    assert (files.high >= needed and not fast) or lies_above(drop, bars.min_ttft_drop, scatter=cold) == fast


# %% [markdown]
# ## 5. Exercises
# In `tutorial_tests/exercises/`; a docstring says what to change. Stuck? `lmcache-tutorial hint 6.1`
# - `ex6_1_size_lmcache.py`: size LMCache for a working set
# - `ex6_2_fill_the_cliff.py`: size a tier, and say what stays in memory
