"""Lesson 7. Many engines, one cache.

Question      Two engines stand behind a router: does a question find what the other engine has computed?
You will see  four ways to route, each with nothing shared and with one Valkey behind all: every hit as
              predicted; an engine that answers fast about a document that it has never seen; who may share.
Words         router, round robin, consistent hash, cache-aware, kv-aware, salt, KV event.
Time          from the reference run; it holds three engine starts.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 6: a tier behind LMCache's memory.
"""

# %% [markdown]
# ## 1. The workload
# Five documents, asked in turn, and then once more, through a *router* in front of two engines, each with an
# LMCache of its own. The router decides which engine gets a request: the other one (*round robin*), the same
# for one session (*consistent hash*), the one that has seen most of this text (*cache-aware*), or the one
# that says that it holds most of it (*kv-aware*). It tries nothing twice, and hides nothing from you. Behind
# both LMCaches may stand one *Valkey*, a server that keeps values in its memory.
#
# Why five? With an even number round robin would send each to the same engine twice, and look perfect.

# %%
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import pytest

from lmcache_tutorial.gate.decide import lies_above
from lmcache_tutorial.graphs.beside import Beside, OpenBeside
from lmcache_tutorial.lessons.progress import Progress
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities import predict
from lmcache_tutorial.quantities.records import Turn
from lmcache_tutorial.quantities.room import Room
from lmcache_tutorial.quantities.routing import engines_in_turn, reused_in_turn
from lmcache_tutorial.quantities.sizing import COLUMNS, kv_mb_s, sizing_rows
from lmcache_tutorial.quantities.statistics import hit_rate, total, ttft_drop
from lmcache_tutorial.report.results import Chart, LessonReport
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.settings.profiles import LessonSizes
from lmcache_tutorial.settings.topology import Policy, RouterConfig, StackConfig, TierConfig
from lmcache_tutorial.stack.restart import reconnect, restart_caches, restart_router
from lmcache_tutorial.stack.stack import Stack

MANUAL, LONG = (Document("lmcache-source", size=size, seed=7) for size in ("kept", "moved"))
QUESTION = "Which class stores a chunk?"
DOCUMENTS, FEW, PASSES = 5, 3, 2  # documents of the arms, and of what comes after them, both odd; passes
POLICIES: tuple[Policy, ...] = ("round_robin", "consistent_hash", "cache_aware", "kv_aware")
ROUND_ROBIN, *_, KV_AWARE = ROUTERS = [RouterConfig("vllm_router", policy) for policy in POLICIES]
SHARING = {"nothing shared": (), "one Valkey": (0,)}  # the tiers behind each LMCache
YOURS, FLEETS = 1_000, (2, 4, 16)  # documents and engines of yours, for the table of what they need
SALTS = ("ours", "ours", "theirs", "theirs")  # of four requests, which go to both engines in turn
Arms = dict[str, list[Turn]]  # how is routed and what is shared -> the requests of two passes
Pairs = list[tuple[Turn, Turn]]
Heard = list[tuple[dict[str, int], Turn]]  # tokens that each engine says it holds, and the request after it


def fleet(config: StackConfig, room: Room) -> StackConfig:
    """A router, two engines with an LMCache each, and a Valkey that may stand behind both."""
    first, second = config.with_engines(kv_events=True).side_by_side(2)
    cache = replace(config.cache, memory_gib=config.cache.memory_gib / 2)
    engines, caches = (first, replace(second, cache=1)), (cache, cache)
    valkey = TierConfig("valkey", planned_gib=room.tier_gib(4 * DOCUMENTS))
    return replace(config, engines=engines, caches=caches, tiers=(valkey,), router=ROUND_ROBIN)


# %% [markdown]
# ## 2. The prediction
# A question finds what its own engine, or its engine's LMCache, has kept of the document; and, if a tier is
# shared, what anybody has kept. So all that counts is the order of the engines, and that follows from the
# policy. Which share of the second pass is reused under round robin, with nothing shared? And
# behind a router that knows about sessions?


# %%
def predicted(arm: str, turns: Sequence[Turn], stack: Stack) -> tuple[list[str], list[int]]:
    """The engine of every request, and what it reuses [tokens], from the engines of the first pass."""
    first, names = [turn.call.engine for turn in turns[:DOCUMENTS]], [one.name for one in stack.engines]
    engines = engines_in_turn(arm.partition(",")[0], first, names, PASSES)
    prompts, chunk = [turn.tokens.prompt for turn in turns[:DOCUMENTS]], stack.chunk_tokens
    shared = [predict.lmcache_reusable_tokens(prompt, prompt, chunk) for prompt in prompts]
    own = [predict.reusable_tokens(one, one, block=stack.block_tokens, chunk=chunk) for one in prompts]
    return engines, reused_in_turn(engines, own, shared if "Valkey" in arm else [0] * DOCUMENTS)


# %% [markdown]
# ## 3. The measurement
# Every arm begins with new documents and a new router; the order of the policies changes with what is shared.
# At the end the second engine is started again with its connector to the *first* engine's LMCache.


# %%
@pytest.fixture(scope="module")
def lab(stack: Stack, open_beside: OpenBeside, room_for: Callable[[str, str], Room], read: Read) -> Beside:
    """Two engines behind a router, beside the session's stack."""
    return open_beside(fleet(stack.config, room_for(read(MANUAL), QUESTION)))


@pytest.fixture(scope="module")
def arms(lab: Beside, read: Read, progress: Progress) -> Arms:
    """Each policy with nothing shared, and then with one Valkey behind both LMCaches."""
    turns = Arms()
    for shift, (sharing, tiers) in enumerate(SHARING.items()):
        restart_caches(lab.stack, replace(lab.stack.config.caches[0], tiers=tiers, retain=True))
        routers = ROUTERS[shift:] + ROUTERS[:shift]
        for router in progress.rounds(routers, len(routers), f"lesson 7: {sharing}, policy"):
            restart_router(lab.stack, router)
            lab.stack.empty_tiers()  # of the documents of the arm before, to save room
            manuals = [fresh(read(MANUAL)) for _ in range(DOCUMENTS)] * PASSES
            sessions = [{"X-Session-ID": f"session {number % DOCUMENTS}"} for number in range(len(manuals))]
            asked, name = zip(manuals, sessions, strict=True), f"{router.policy}, {sharing}"
            turns[name] = [lab(manual, QUESTION, extra_headers=session) for manual, session in asked]
    return turns


@pytest.fixture(scope="module")
def salted(lab: Beside, arms: Arms, read: Read) -> list[list[Turn]]:
    """One document under two salts, each asked of both engines in turn; and so with other documents."""
    restart_router(lab.stack, ROUND_ROBIN)
    manuals = [fresh(read(MANUAL)) for _ in range(FEW)]
    return [[lab(one, QUESTION, extra_body={"cache_salt": salt}) for salt in SALTS] for one in manuals]


@pytest.fixture(scope="module")
def heard(lab: Beside, salted: list[list[Turn]], read: Read) -> Heard:
    """What each engine had announced that it holds of a prompt, and then the request to a kv-aware router."""
    restart_router(lab.stack, KV_AWARE)
    return lab.heard([fresh(read(MANUAL)) for _ in range(FEW)], QUESTION)


@pytest.fixture(scope="module")
def one_memory(lab: Beside, heard: Heard, read: Read, sizes: LessonSizes) -> Pairs:
    """Long documents, asked cold of one engine and then of the other; both are connected to one LMCache."""
    restart_router(lab.stack, ROUND_ROBIN)
    reconnect(lab.stack, engine=1, cache=0)
    lab.stack.empty_tiers()
    manuals = [fresh(read(LONG)) for _ in range(sizes.rounds)]
    return [(lab(one, QUESTION), lab(one, QUESTION)) for one in manuals]


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson7_every_request_goes_where_and_reuses_what_was_predicted(
    arms: Arms, lab: Beside, report: LessonReport
) -> None:
    routes = {arm: predicted(arm, turns, lab.stack) for arm, turns in arms.items()}
    expected = {arm: reused for arm, (_, reused) in routes.items()}
    found = {arm: [turn.tokens.reused for turn in turns] for arm, turns in arms.items()}
    report.compare_arms("Reused by each request", predicted=expected, measured=found)
    served = {arm: [turn.tokens for turn in turns[DOCUMENTS:]] for arm, turns in arms.items()}
    report.served("Who served the second pass", served)
    for arm, (engines, _) in routes.items():
        assert [turn.call.engine for turn in arms[arm]] == engines, arm
    assert found == expected


# %% [markdown]
# What could have been reused, and what was? In the first pass nothing: that is the control. After it, with
# sharing, every whole chunk: whoever gets the second question finds the first one's work. A router that keeps
# each document at one engine loses nothing either; but where nobody is busy, cache-aware and kv-aware may
# send all to *one*. Round robin without sharing pays for every engine that it visits. So sharing does not
# make hits *more* than a good router does: it makes them independent of where a question is sent.


# %%
def test_lesson7_sharing_lifts_round_robin_above_the_hit_rate_bar(
    arms: Arms, lab: Beside, report: LessonReport, bars: Thresholds
) -> None:
    windows = {arm: total(turn.tokens for turn in turns[DOCUMENTS:]) for arm, turns in arms.items()}
    known = partial(predict.reusable_tokens, block=lab.stack.block_tokens, chunk=lab.stack.chunk_tokens)
    asked = {arm: [turn.tokens.prompt for turn in turns[DOCUMENTS:]] for arm, turns in arms.items()}
    could = {arm: sum(map(known, prompts, prompts)) for arm, prompts in asked.items()}
    rows = [[a, w.reused, could[a] - w.reused, w.prompt - could[a]] for a, w in windows.items()]
    columns = ["arm", "was reused", "could have been", "had to be computed"]
    report.chart(Chart("What the router could have hit", "parts", columns, rows, axis="prompt tokens"))
    rates, shared = {arm: hit_rate([one]) for arm, one in windows.items()}, "round_robin, one Valkey"
    report.headline(hit_rate=rates[shared], tokens=windows[shared])
    assert rates.pop("round_robin, nothing shared") < bars.min_hit_rate
    assert min(rates.values()) > bars.min_hit_rate


# %% [markdown]
# Under round robin the second question about a document goes to the engine that has never seen it: its KV is
# what the neighbour computed, brought through Valkey. A tier pays while it brings KV faster than an engine
# makes it (README.md, "On a GPU", tells of one that did not); a chart has both rates.


# %%
def test_lesson7_valkey_brings_what_the_neighbour_computed(
    arms: Arms, lab: Beside, report: LessonReport
) -> None:
    turns, kv_bytes = arms["round_robin, one Valkey"], lab.stack.kv_bytes_per_token
    first, second = turns[:DOCUMENTS], turns[DOCUMENTS:]
    times = [[turn.call.ttft_s for turn in turns] for turns in (first, second)]
    made = kv_mb_s([turn.tokens.computed for turn in first], times[0], kv_bytes)
    brought = kv_mb_s([turn.tokens.lmcache_l2 for turn in second], times[1], kv_bytes)
    rates, by = {"prefilled": made, "Valkey": brought}, {"prefilled": "computed", "Valkey": "lmcache_l2"}
    report.rounds("KV made, and KV brought", rates, unit="MB/s", served_by=by)
    needs = sizing_rows(FLEETS, YOURS * first[0].tokens.prompt * kv_bytes, 1e6 * median(made))
    report.table(f"What {YOURS:,} such documents need", COLUMNS, needs)
    assert all(turn.tokens.lmcache_l2 == turn.tokens.reused > 0 for turn in second)


# %% [markdown]
# Who may share? Two customers should not learn from a fast answer what the other one has asked. A request may
# carry a *salt* (`cache_salt`), and KV is shared only under the same one: in the engine, in LMCache, and in
# Valkey. The claim is a pair: the same salt hits, another misses. If a gateway drops the field, that fails.


# %%
def test_lesson7_only_requests_of_one_salt_share(
    salted: list[list[Turn]], lab: Beside, report: LessonReport
) -> None:
    chunk, prompts = lab.stack.chunk_tokens, [turns[0].tokens.prompt for turns in salted]
    whole = [predict.lmcache_reusable_tokens(prompt, prompt, chunk) for prompt in prompts]
    expected = {"ours": [0] * FEW, "ours, again": whole, "theirs": [0] * FEW, "theirs, again": whole}
    found = {name: [turns[place].tokens.reused for turns in salted] for place, name in enumerate(expected)}
    report.compare_arms("Reused, salt", predicted=expected, measured=found)
    assert found == expected


# %% [markdown]
# How can a router *know* what an engine holds? vLLM announces it: a *KV event* for every block that it stores
# or gives up. Here the engines are asked past the router, which has seen none of these texts. A listener of
# ours keeps the books: what it says before a request is what the engine's counter says after it, and the
# kv-aware router sends the request there.


# %%
def test_lesson7_kv_events_say_where_the_prefix_is(heard: Heard, lab: Beside, report: LessonReport) -> None:
    reusable = partial(predict.engine_reusable_tokens, block=lab.stack.block_tokens)
    expected = [reusable(max(held.values()), turn.tokens.prompt) for held, turn in heard]
    counted = [turn.tokens.engine for _, turn in heard]
    report.compare("From the engine's own cache", predicted=expected, measured=counted, sequence=True)
    assert all(held[turn.call.engine] == max(held.values()) > 0 for held, turn in heard)
    assert counted == expected


# %% [markdown]
# Two engines on one machine need no Valkey: both connect to one LMCache, and share its memory. How fast does
# the first token come from a document that an engine has never seen?


# %%
def test_lesson7_two_engines_on_one_lmcache_share_its_memory(
    one_memory: Pairs, report: LessonReport, bars: Thresholds
) -> None:
    second = [pair[1].tokens for pair in one_memory]
    report.served("Two engines, one LMCache: the other engine", {"one LMCache": second})
    assert all(one.call.engine != two.call.engine for one, two in one_memory)
    assert [one.tokens.reused for one, _ in one_memory] == [0] * len(one_memory)
    assert min(tokens.lmcache_l1 / tokens.prompt for tokens in second) > bars.min_hit_rate


# %%
def test_lesson7_ttft_drops_on_the_engine_that_never_saw_the_document(
    one_memory: Pairs, report: LessonReport, bars: Thresholds
) -> None:
    cold, other = ([pair[place].call.ttft_s for pair in one_memory] for place in (0, 1))
    by = {"first engine, cold": "computed", "other engine": "lmcache_l1"}
    report.rounds("TTFT, first and other engine", dict(zip(by, (cold, other), strict=True)), served_by=by)
    drop = ttft_drop(cold, other)
    report.headline(ttft_drop=drop)
    assert lies_above(drop, bars.min_ttft_drop, scatter=cold)


# %% [markdown]
# On many machines the pieces are the same (README.md, "On many machines", has the commands). This run has
# proven that hits cross engines, and nothing of how your network carries them.

# %% [markdown]
# ## 5. Exercises
# In `tutorial_tests/exercises/`; a docstring says what to change. Stuck? `lmcache-tutorial hint 7.1`
# - `ex7_1_route_these_sessions.py`: route sessions to engines that know them
# - `ex7_2_share_what_is_public.py`: share what is public between customers, and no more
