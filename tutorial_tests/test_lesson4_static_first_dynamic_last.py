"""Lesson 4. Static first, dynamic last.

Question      A clock stands in your prompt: what does its place cost?
You will see  the same words reused wholly or not at all, by where one line stands; the curve between,
              predicted to the token; what rounding loses; and two orders that nobody looks at.
Time          4 minutes; most of it for one claim, that nothing changes.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 2: the shared prefix, rounded down to whole blocks.
"""

# %% [markdown]
# ## 1. The workload
# A manual that never changes, a question, and a clock that changes at every turn. The clock moves: in front
# of the manual, into it, behind it. The words are the same in every arm.

# %%
import json
from collections.abc import Sequence
from datetime import datetime

import pytest

from fixtures.corpus import Read
from fixtures.pairs import Pair, Pairs
from lmcache_tutorial.config import LessonSizes, Thresholds
from lmcache_tutorial.corpus import Document, fresh
from lmcache_tutorial.metrics import total, ttft_drop
from lmcache_tutorial.prompts import Segment, divergence, predicted_reuse
from lmcache_tutorial.records import Interval
from lmcache_tutorial.results import LessonReport
from lmcache_tutorial.stack import Stack

LONG, MEDIUM, SHORT = (Document("lmcache-source", size=s, seed=4) for s in ("long", "medium", "short"))
QUESTION = Segment("question", "turn", "Which class stores a chunk?", "user")
PLACES = {"front": 0.0, "a quarter in": 0.25, "half way": 0.5, "three quarters in": 0.75, "end": 1.0}
COUNT_ROUNDS = 2  # the places between claim counts, and counts do not scatter
ADDED = (0.0, 0.25, 0.5, 0.75, 0.98)  # of a chunk, in words of about a token each


def clock() -> Segment:
    return Segment("clock", "turn", f"It is {datetime.now():%S.%f seconds past %H:%M on %A, %d %B %Y}.")


def with_clock(manual: str, place: float) -> list[Segment]:
    cut = int(len(manual) * place)
    head, rest = Segment("manual", "static", manual[:cut]), Segment("rest", "static", manual[cut:])
    return [segment for segment in (head, clock(), rest, QUESTION) if segment.text]


# %% [markdown]
# ## 2. The prediction
# The segments are rendered with the model's template and tokenizer, so that each token has its segment. Where
# two prompts part, reuse ends: all that follows is prefilled, though it is word for word the same, since a KV
# entry depends on *every* token before it. The **static hit rate** is the share of the static tokens that is
# reused. The clock's place should *be* that rate. Predict the five values before you look.


# %%
def predicted(asked: list[Pair]) -> list[int]:
    """What the second requests were to reuse: the shared prefix in whole blocks, or chunks [tokens]."""
    return [pair.predicted for pair in asked]


def measured(asked: list[Pair]) -> list[int]:
    return [pair.second.tokens.reused for pair in asked]


# %% [markdown]
# ## 3. The measurement
# The first request of a pair is cold, for its manual carries a nonce; the second differs only in what the arm
# changes. `pairs` checks each rendering against the server's own token ids. Two arms are timed: the clock at
# the end over seven rounds, and the clock in front over more of a shorter manual. To show that there is *no*
# effect takes more rounds than to show a large one, and many more where the machine is noisy.


# %%
@pytest.fixture(scope="module")
def places(pairs: Pairs, read: Read, sizes: LessonSizes) -> dict[str, list[Pair]]:
    """The clock at five places: at the end in seven rounds, at the others in two."""
    asked: dict[str, list[Pair]] = {place: [] for place in PLACES}
    for number in range(sizes.rounds):
        for name, place in PLACES.items():
            if name == "end" or number < COUNT_ROUNDS:
                manual = fresh(read(LONG))
                asked[name].append(pairs.ask(with_clock(manual, place), with_clock(manual, place)))
    return asked


@pytest.fixture(scope="module")
def broken(pairs: Pairs, read: Read, sizes: LessonSizes) -> list[Pair]:
    """The clock in front of a shorter manual, in as many rounds as this machine's noise asks for."""
    manuals = [fresh(read(MEDIUM)) for _ in range(sizes.rounds_without_effect)]
    return [pairs.ask(with_clock(manual, 0.0), with_clock(manual, 0.0)) for manual in manuals]


def drop(asked: list[Pair], name: str, report: LessonReport) -> Interval:
    """The TTFT drop of the second requests against the first."""
    times = {order: [getattr(pair, order).call.ttft_s for pair in asked] for order in ("first", "second")}
    report.rounds(f"TTFT, clock {name}", {f"{order} request": values for order, values in times.items()})
    return ttft_drop(times["first"], times["second"])


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson4_reuse_ends_where_the_clock_stands(
    places: dict[str, list[Pair]], report: LessonReport
) -> None:
    for name, asked in places.items():
        report.compare(f"Reused, clock at: {name}", predicted=predicted(asked), measured=measured(asked))
    report.served(
        "The second prompt", {n: [p.second.tokens for p in asked[:1]] for n, asked in places.items()}
    )
    assert [measured(asked) for asked in places.values()] == [predicted(asked) for asked in places.values()]


def test_lesson4_the_static_hit_rate_goes_from_nothing_to_above_the_bar(
    places: dict[str, list[Pair]], report: LessonReport, bars: Thresholds
) -> None:
    rates = {name: [pair.static_hit_rate for pair in asked] for name, asked in places.items()}
    rows = [(100 * PLACES[name], 100 * rate, "measured") for name in PLACES for rate in rates[name]]
    columns = ["place of the clock [% of the manual]", "static hit rate [%]", "arm"]
    report.chart("Static hit rate", kind="growth", columns=columns, rows=rows, axis=columns[0])
    tokens = total(pair.second.tokens for pair in places["end"])
    report.headline(hit_rate=tokens.reused / tokens.prompt, static_hit_rate=min(rates["end"]), tokens=tokens)
    assert set(rates["front"]) == {0.0}
    assert min(rates["end"]) > bars.min_hit_rate


def test_lesson4_with_the_clock_at_the_end_ttft_drops_by_more_than_the_bar(
    places: dict[str, list[Pair]], report: LessonReport, bars: Thresholds
) -> None:
    found = drop(places["end"], "at the end", report)
    report.headline(ttft_drop=found)
    assert found.low > bars.min_ttft_drop


def test_lesson4_with_the_clock_in_front_ttft_does_not_drop(broken: list[Pair], report: LessonReport) -> None:
    assert measured(broken) == predicted(broken) == [0] * len(broken)
    assert drop(broken, "in front", report).high < 0.20


# %% [markdown]
# Rounding. The engine keeps whole blocks, LMCache whole chunks. Add a few words to the static text: nothing
# more is reused until the next block, or chunk, is full. Static text shorter than a chunk is never kept.


# %%
def test_lesson4_only_whole_blocks_and_chunks_are_reused(
    pairs: Pairs, read: Read, stack: Stack, report: LessonReport
) -> None:
    expected: dict[str, list[int]] = {"engine": [], "lmcache": []}
    found: dict[str, list[int]] = {"engine": [], "lmcache": []}
    for share in ADDED:
        manual = fresh(read(SHORT)) + " more" * int(share * stack.chunk_tokens)
        prompts = [pairs.send(with_clock(manual, 1.0), "cold")[0].rendered]
        for start, form in (("engine", pairs.engine), ("lmcache", pairs.lmcache)):
            layout, turn = pairs.send(with_clock(manual, 1.0), start)
            prompts.append(layout.rendered)
            expected[start].append(predicted_reuse(prompts, form)[-1])
            found[start].append(turn.tokens.reused)
    for start in found:
        report.compare(f"Reused as text grows, {start}", predicted=expected[start], measured=found[start])
    assert found == expected


# %% [markdown]
# Two orders that nobody looks at: a registry that lists its tools as a set, and a record whose keys come as
# they were inserted. The same content, other tokens; and tools stand near the front in most templates. Sort
# both, and the prefix holds. `divergence` names the segment in which two prompts part.


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
        report.compare(f"Reused, {name}", predicted=predicted([pair]), measured=measured([pair]))
        parted = divergence(*pair.layouts)
        culprits[name] = parted.segment if parted else None
        asked.append(pair)
    assert measured(asked) == predicted(asked)
    assert culprits == {"sorted": None, "tools shuffled": "metric", "keys shuffled": "record"}


# %% [markdown]
# ## 5. Exercises
# 1. Let the clock tell hours and minutes only. When does a prompt with the clock in front hit, and when not?
# 2. Move `QUESTION` into the system message, above the manual. Which claim fails first?
# 3. `better_order` in `prompts.py` sorts segments by how often they change: try `with_clock(manual, 0.0)`.
