"""Lesson 4. Static first, dynamic last.

Question      A clock stands in your prompt: what does its place cost?
You will see  the same words reused wholly or not at all, by where one line stands; the curve between,
              predicted to the token; what rounding loses; and two orders that nobody looks at.
Words         static, dynamic, static hit rate, sequential test.
Time          from the reference run.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 2: the shared prefix, rounded down to whole blocks.
"""

# %% [markdown]
# ## 1. The workload
# A manual that never changes (*static* text), a question, and a clock that changes at every turn (*dynamic*
# text). The clock moves: in front of the manual, into it, behind it. The words are the same in every arm. A
# `Segment` has a name, how often it changes, and its text; `with_clock` cuts the manual at a share of its
# *tokens*, for tokens are what a cache counts.

# %%
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import pytest

from lmcache_tutorial.asking.cache_state import Start
from lmcache_tutorial.gate.decide import decided, lies_above
from lmcache_tutorial.graphs.pairs import Pair, Pairs, predicted, reused, ttft_s
from lmcache_tutorial.lessons.progress import Progress
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.prompts.layout import Reuse, Segment, divergence, predicted_reuse
from lmcache_tutorial.quantities.predict import shared_prefix_tokens
from lmcache_tutorial.quantities.sources import source
from lmcache_tutorial.quantities.statistics import LOOKS, hit_rate, stays_above, total, ttft_drop
from lmcache_tutorial.report.results import Chart, LessonReport
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.settings.profiles import LessonSizes
from lmcache_tutorial.stack.stack import Stack

LONG, MEDIUM, SHORT = (Document("lmcache-source", size=s, seed=4) for s in ("long", "medium", "short"))
QUESTION = Segment("question", "turn", "Which class stores a chunk?", "user")
PLACES = {"front": 0.0, "a quarter in": 0.25, "half way": 0.5, "three quarters in": 0.75, "end": 1.0}
COUNT_ROUNDS = 1  # of the other places: one round is enough, since token counts do not scatter
CURVE = [number / 20 for number in range(21)]
ADDED = (0.0, 0.25, 0.5, 0.75, 0.98)  # of a chunk, in words of about a token each
SMALL_DROP = 0.2  # a drop that would be worth a change of the prompt
Places = dict[str, list[Pair]]  # the name of a place -> what was asked with the clock there


def clock() -> Segment:
    return Segment("clock", "turn", f"It is {datetime.now():%S.%f seconds past %H:%M on %A, %d %B %Y}.")


def with_clock(stack: Stack, manual: str, place: float) -> list[Segment]:
    head, rest = stack.renderer.split(manual, place)
    around = [Segment("manual", "static", head), clock(), Segment("rest", "static", rest), QUESTION]
    return [segment for segment in around if segment.text]


def two_prompts(stack: Stack, manual: str, place: float) -> tuple[list[Segment], list[Segment]]:
    return with_clock(stack, manual, place), with_clock(stack, manual, place)


# %% [markdown]
# ## 2. The prediction
# The segments are rendered with the model's template and tokenizer, so that each token has its segment. Where
# two prompts part, reuse ends: all that follows is prefilled, though it is word for word the same. The
# **static hit rate** is the share of the static tokens that is reused. The clock's place should *be* that
# rate. Predict the five values before you look; the code predicts twenty-one, without asking the engine.


# %%
def predicted_rate(stack: Stack, pairs: Pairs, manual: str, place: float) -> float:
    """The static hit rate of a second prompt whose clock stands at a share of the manual."""
    return pairs.predicted_static_hit_rate(*two_prompts(stack, manual, place))


# %% [markdown]
# ## 3. The measurement
# The first request of a pair is cold, for its manual carries a nonce; the second differs only in what the arm
# changes. `pairs` checks each rendering against the server's own token ids. Two arms are timed. For the clock
# at the end seven rounds are enough, because a large effect is easy to show. For the clock in front the claim
# is that TTFT drops by less than `SMALL_DROP`. How many rounds that takes depends on your machine's noise. If
# you looked after every round and stopped when you liked the answer, you would be wrong too often. So a
# *sequential test* looks only at numbers of rounds that were fixed beforehand (`LOOKS`), and stops at its
# first answer. Without one at the last look the claim is undecided. The manual is shorter, since the rounds
# may be many.
#
# LMCache runs beside the engine, but the engine's own cache serves all reused tokens, unless a request has it
# emptied.


# %%
@pytest.fixture(scope="module")
def places(pairs: Pairs, read: Read, stack: Stack, sizes: LessonSizes, progress: Progress) -> Places:
    """The clock at five places: at the end in seven rounds, at the others in one."""
    asked: Places = {place: [] for place in PLACES}
    for number in progress.rounds(range(sizes.rounds), sizes.rounds, "lesson 4: round"):
        for name, place in PLACES.items():
            if name == "end" or number < COUNT_ROUNDS:
                manual = fresh(read(LONG))
                asked[name].append(pairs.ask(*two_prompts(stack, manual, place)))
    return asked


@pytest.fixture(scope="module")
def broken(pairs: Pairs, read: Read, stack: Stack, progress: Progress) -> list[Pair]:
    """The clock in front of a shorter manual, in as many rounds as this machine's noise asks for."""
    asked: list[Pair] = []
    what = "lesson 4: clock in front, round"
    for _ in progress.rounds(range(LOOKS[-1]), LOOKS[-1], what, at_most=True):
        manual = fresh(read(MEDIUM))
        asked.append(pairs.ask(*two_prompts(stack, manual, 0.0)))
        if stays_above([pair.ttft_ratio for pair in asked], 1 - SMALL_DROP) is not None:
            break
    return asked


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson4_reuse_ends_where_the_clock_stands(places: Places, report: LessonReport) -> None:
    expected = {name: predicted(asked) for name, asked in places.items()}
    found = {name: reused(asked) for name, asked in places.items()}
    report.compare_arms("Reused, clock at", predicted=expected, measured=found)
    report.served("The second prompt", {n: [p.second.tokens for p in asked] for n, asked in places.items()})
    assert found == expected


def test_lesson4_the_static_hit_rate_goes_from_nothing_to_above_the_bar(
    places: Places, pairs: Pairs, read: Read, stack: Stack, report: LessonReport, bars: Thresholds
) -> None:
    rates = {name: [pair.static_hit_rate for pair in asked] for name, asked in places.items()}
    manual = fresh(read(LONG))
    rows = [(100 * at, 100 * predicted_rate(stack, pairs, manual, at), "predicted") for at in CURVE]
    rows += [(100 * PLACES[name], 100 * rate, "measured") for name in PLACES for rate in rates[name]]
    columns = ["place of the clock [% of the manual's tokens]", "static hit rate [%]", "arm"]
    tokens = total(pair.second.tokens for pair in places["end"])
    served_by = {"predicted": "predicted", "measured": source(tokens)}
    report.chart(Chart("Static hit rate", "growth", columns, rows, axis=columns[0], served_by=served_by))
    report.headline(hit_rate=hit_rate([tokens]), static_hit_rate=min(rates["end"]), tokens=tokens)
    assert tokens.lmcache == 0
    assert set(rates["front"]) == {0.0}
    assert min(rates["end"]) > bars.min_hit_rate


def test_lesson4_with_the_clock_at_the_end_ttft_drops_by_more_than_the_bar(
    places: Places, report: LessonReport, bars: Thresholds
) -> None:
    cold, warm = ttft_s(places["end"], "first"), ttft_s(places["end"], "second")
    found = ttft_drop(cold, warm)
    report.headline(ttft_drop=found)
    arms = {"first request": cold, "second request": warm}
    served_by = {"first request": "computed", "second request": source(places["end"][0].second.tokens)}
    report.rounds("TTFT, clock at the end", arms, served_by=served_by)
    assert lies_above(found, bars.min_ttft_drop, scatter=cold)


def test_lesson4_with_the_clock_in_front_ttft_does_not_drop(broken: list[Pair], report: LessonReport) -> None:
    first, second = ttft_s(broken, "first"), ttft_s(broken, "second")
    arms = {"first request": first, "second request": second}
    report.rounds("TTFT, clock in front", arms, served_by=dict.fromkeys(arms, "computed"))
    assert reused(broken) == predicted(broken) == [0] * len(broken)
    ratios = [pair.ttft_ratio for pair in broken]
    assert decided(stays_above(ratios, 1 - SMALL_DROP), scatter=first)


# %% [markdown]
# Rounding. The engine keeps whole blocks, LMCache whole chunks. Add a few words to the static text: nothing
# more is reused until the next block, or chunk, is full.


# %%
@pytest.mark.usefixtures("emptying")
def test_lesson4_only_whole_blocks_and_chunks_are_reused(
    pairs: Pairs, read: Read, stack: Stack, report: LessonReport
) -> None:
    forms: dict[Start, Reuse] = {"engine": pairs.engine, "lmcache": pairs.lmcache}
    expected: dict[str, list[int]] = defaultdict(list)
    found: dict[str, list[int]] = defaultdict(list)
    for share in ADDED:
        manual = fresh(read(SHORT)) + " more" * int(share * stack.chunk_tokens)
        prompts = [pairs.send(with_clock(stack, manual, 1.0), "cold")[0].rendered]
        for start, form in forms.items():
            layout, turn = pairs.send(with_clock(stack, manual, 1.0), start)
            prompts.append(layout.rendered)
            expected[start].append(predicted_reuse(prompts, form)[-1])
            found[start].append(turn.tokens.reused)
    for cache, name in (("engine", "the engine"), ("lmcache", "LMCache")):
        title = f"Reused as text grows, {name}"
        report.compare(title, predicted=expected[cache], measured=found[cache], sequence=True)
    assert found == expected
    assert all(len(set(counts)) > 1 for counts in found.values())  # a step was met on the way


# %% [markdown]
# So LMCache never gives back static text that is shorter than a chunk. Its chunk also holds a part of the
# clock, and the next clock is another. A short system prompt in front of a clock is such a text.


# %%
@pytest.mark.usefixtures("emptying")
def test_lesson4_lmcache_never_gives_back_static_text_shorter_than_a_chunk(
    pairs: Pairs, read: Read, stack: Stack, report: LessonReport
) -> None:
    manual = fresh(read(SHORT))
    share = (stack.chunk_tokens - 24) / stack.count_tokens(manual)  # the template adds some tokens of its own
    starts: tuple[Start, ...] = ("cold", "as it is", "as it is")
    prompts, found = [], []
    for start in starts:
        stack.empty_engine_cache()  # and not start="lmcache", which would demand a hit
        layout, turn = pairs.send(with_clock(stack, manual, share), start)
        prompts.append(layout.rendered)
        found.append(turn.tokens.reused)
    expected = predicted_reuse(prompts, pairs.lmcache)
    report.compare("From LMCache, static text shorter than a chunk", predicted=expected, measured=found)
    shared = shared_prefix_tokens(prompts[0].ids, prompts[1].ids)
    assert 0 < shared < stack.chunk_tokens < len(prompts[0])
    assert found == expected == [0] * len(starts)


# %% [markdown]
# Two orders that nobody looks at: a registry that lists its tools as a set, and a record whose keys come as
# they were inserted. The same content, other tokens; and tools stand near the front in most templates. Sort
# both, and the prefix holds. `divergence` names the segment of the second prompt in which the two part: after
# the shuffle its first tool is `metric`.


# %%
def tool(name: str) -> Segment:
    parameters = {"type": "object", "properties": {"name": {"type": "string"}}}
    function = {"name": name, "description": f"Looks up a {name} in the manual.", "parameters": parameters}
    return Segment(name, "static", json.dumps({"type": "function", "function": function}), "tools")


def listing(rules: str, manual: str, tools: Sequence[str], keys: Sequence[str]) -> list[Segment]:
    record = Segment("record", "static", json.dumps({key: len(key) for key in keys}))
    manual_below = Segment("manual", "static", manual, "user")
    return [Segment("rules", "static", rules), record, *map(tool, tools), manual_below, QUESTION]


def test_lesson4_another_order_of_tools_or_keys_breaks_the_prefix(
    pairs: Pairs, read: Read, report: LessonReport
) -> None:
    one, other = ["class", "function", "option", "metric"], ["metric", "option", "class", "function"]
    arms = {"sorted": (one, one), "tools shuffled": (other, one), "keys shuffled": (one, other)}
    asked, culprits = [], {}
    for name, (tools, keys) in arms.items():
        head, manual = fresh("Answer from the manual."), read(SHORT)
        pair = pairs.ask(listing(head, manual, one, one), listing(head, manual, tools, keys))
        report.compare(f"Reused, {name}", predicted=predicted([pair]), measured=reused([pair]))
        parted = divergence(*pair.layouts)
        culprits[name] = parted.segment if parted else None
        asked.append(pair)
    assert reused(asked) == predicted(asked)
    assert reused(asked)[0] > max(reused(asked)[1:])
    assert culprits == {"sorted": None, "tools shuffled": "metric", "keys shuffled": "record"}


# %% [markdown]
# ## 5. Exercises
# In `tutorial_tests/exercises/`; a docstring says what to change. Stuck? `lmcache-tutorial hint 4.1`
# - `ex4_1_put_the_prompt_in_order.py`: put an agent's prompt in order until it passes 90 %
# - `ex4_2_the_chunk_that_pays.py`: find the chunk at which short system prompts pay
