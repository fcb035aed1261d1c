"""Lesson 9. Watch it, and keep it.

Question      Your agent keeps its prefix today. How do you learn that it lost it, and how do you keep it?
You will see  lesson 5's agent in three releases, told from its traces alone: a regression found, named and
              mended; and a gate that is seen to fail, for four reasons, before it is trusted.
Words         regression, release, gate, baseline.
Time          from the reference run; it holds one engine start.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 5: an agent that keeps its prefix; lesson 3: LMCache keeps whole chunks.
"""

# %% [markdown]
# ## 1. The workload
# The agent of lesson 5, append-only, talks about one manual. Then somebody thinks that it should know the
# time, and puts a clock in front of its system prompt; that is the second *release*. In the third one it is
# mended. Each release has a conversation of three turns, of three requests each. No counter is looked at: all
# that you have of a running system is what Langfuse's handler wrote down.

# %%
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, SystemMessage

from lmcache_tutorial.asking.ask import Asker
from lmcache_tutorial.diagnosis.diagnose import diagnose
from lmcache_tutorial.diagnosis.logs import Log
from lmcache_tutorial.diagnosis.prompts_of import choose
from lmcache_tutorial.graphs.agent import Agents, Policy, predicted_reuse_of, toolbox
from lmcache_tutorial.graphs.beside import OpenBeside
from lmcache_tutorial.lessons.progress import Progress
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities.predict import lmcache_reusable_tokens
from lmcache_tutorial.quantities.records import TokenSources, Turn
from lmcache_tutorial.report.results import Chart, LessonReport
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.settings.run import RunConfig
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.traces import watched as read_traces
from lmcache_tutorial.traces.record import Traces
from lmcache_tutorial.traces.watched import Generation, Window
from lmcache_tutorial.workbench.gate_run import Gate, GateRun

QUESTIONS = ("Which class stores a chunk?", "Which one looks a chunk up?", "Which one gives chunks up?")
GROUP = "agent"
COUNTED = {"served_by": "lmcache", "times": False}  # the engine's own hits do not count, nor do times
WIDER = 16  # how many times as large the chunk is that somebody has set
CLOCK, TOOLS, SALT, CHUNK = "a clock", "order of tools", "a salt for each", "another chunk"
Talks = dict[str, list[Turn]]  # a release -> the turns of its conversation
Windows = dict[str, Window]  # a release -> its requests, from the traces
Requests = list[dict[str, Any]]
Runs = dict[str, GateRun]  # a fault -> the gate on it


def append_only(manual: str, history: Sequence[BaseMessage]) -> list[BaseMessage]:
    return [SystemMessage(manual), *history]


def with_a_clock(manual: str, history: Sequence[BaseMessage]) -> list[BaseMessage]:
    return [SystemMessage(f"It is {datetime.now():%Y-%m-%d %H:%M:%S.%f}. {manual}"), *history]


RELEASES: dict[str, Policy] = {"before": append_only, "with a clock": with_a_clock, "mended": append_only}


# %% [markdown]
# ## 2. The prediction
# What one request reuses of all before it follows from the prompts alone, as in lesson 5; this time the
# *traces* must tell it. With the clock, what does the first request of a turn still reuse? And the other two?
#
# The gate will ask two of these requests, and count only what LMCache serves: whole chunks. Somebody sets
# LMCache's chunk sixteen times as large. Which share of the prompt can still be reused?


# %%
def reusable_share(prompt: int, chunk: int) -> float:
    """The largest hit rate of a prompt that was asked before, with chunks of a size."""
    return lmcache_reusable_tokens(prompt, prompt, chunk) / prompt


# %% [markdown]
# ## 3. The measurement
# First the three conversations, and their traces. Then the *gate*: two requests of the first release, as they
# were sent, become a file of prompts, and a pytest that knows an address and nothing else asks them of the
# engine. What it finds is kept as a *baseline*. Three faults are planted into the prompts; then the mended
# release is held against the baseline; the fourth fault is a deployment with another chunk.


# %%
@pytest.fixture(scope="module")
def manual(read: Read, chunks: None) -> str:
    """A long manual: of one below 16 chunks too much lies beyond the last whole chunk."""
    return fresh(read(Document("lmcache-source", size="moved", seed=9)))


@pytest.fixture(scope="module")
def releases(manual: str, ask: Asker, agents: Agents, run: RunConfig, progress: Progress) -> Talks:
    """A conversation about one manual with each release."""
    if run.mask:
        pytest.skip("with --kv-mask traces have no prompts, and this lesson reads them")
    talks, asked = Talks(), [{"manual": manual, "question": question} for question in QUESTIONS]
    for name, policy in progress.rounds(RELEASES.items(), len(RELEASES), "lesson 9: release"):
        graph = agents.talk(policy)
        talks[name] = [ask(graph, state, thread=name) for state in asked]
    return talks


@pytest.fixture(scope="module")
def watched(releases: Talks, traces: Traces) -> list[Generation]:
    """Every request of the three releases, as their traces tell it."""
    ours = {turn.trace_id for talk in releases.values() for turn in talk if traces.of(turn)}  # on the disk
    found = read_traces.generations(read_traces.whole_or_lines(traces.path.read_text()))
    return [one for one in found if one.trace_id in ours]


@pytest.fixture(scope="module")
def windows(watched: list[Generation]) -> Windows:
    """The requests in three parts of the time, which are the releases."""
    return dict(zip(RELEASES, read_traces.over_time(watched, len(RELEASES)), strict=True))


def sent(window: Window) -> Requests:
    """The first requests of two turns, as the traces have them."""
    documents = [json.dumps(one.document) for one in window.generations if one.node == "route"]
    return [json.loads(line) for line in choose(Log(documents), GROUP, most=2).lines]


def planted(windows: Mapping[str, Window]) -> dict[str, Requests]:
    """Three faults of an application, in requests that it has sent."""
    good, late = sent(windows["before"]), sent(windows["with a clock"])
    tools = toolbox(max(one.prompt_tokens or 0 for one in windows["before"].generations) // 5)
    return {
        CLOCK: late,
        TOOLS: [{**one, "tools": order} for one, order in zip(good, (tools, tools[::-1]), strict=True)],
        SALT: [{**one, "cache_salt": f"request {number}"} for number, one in enumerate(good)],
    }


@pytest.fixture(scope="module")
def before(gate: Gate, stack: Stack, windows: Windows) -> GateRun:
    """The gate on the agent as it was."""
    return gate(stack, [*sent(windows["before"]), {"group": GROUP, "kv": COUNTED}])


@pytest.fixture(scope="module")
def against(before: GateRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option that holds a run against what the gate found of the agent as it was."""
    return before.keep(tmp_path_factory.mktemp("gate") / "kv-baseline.json")


@pytest.fixture(scope="module")
def bad(gate: Gate, stack: Stack, windows: Windows, against: str) -> Runs:
    """The gate on the three faults of the prompts."""
    faults = planted(windows)
    lines = [{**one, "group": name} for name, some in faults.items() for one in some]
    return dict.fromkeys(faults, gate(stack, lines + [{"group": one, "kv": COUNTED} for one in faults]))


@pytest.fixture(scope="module")
def mended(gate: Gate, stack: Stack, windows: Windows, bad: Runs, against: str) -> GateRun:
    """The gate on the mended agent, after those faults."""
    return gate(stack, [*sent(windows["mended"]), {"group": GROUP, "kv": COUNTED}], against)


@pytest.fixture(scope="module")
def faulty(
    gate: Gate, stack: Stack, windows: Windows, bad: Runs, mended: Any, against: str, open_beside: OpenBeside
) -> Runs:
    """The gate on each of the four faults; on a GPU the session's stack makes room for the last one."""
    other = open_beside(stack.config.with_caches(chunk_tokens=WIDER * stack.chunk_tokens)).stack
    group = [*sent(windows["before"]), {"group": GROUP, "kv": COUNTED}]
    return bad | {CHUNK: gate(other, group, against)}


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson9_the_traces_alone_tell_what_every_request_reused(
    releases: Talks, watched: list[Generation], stack: Stack, report: LessonReport
) -> None:
    calls = [call for talk in releases.values() for turn in talk for call in turn.calls]
    expected = predicted_reuse_of(stack, calls)
    found = [one.cached_tokens for one in watched if one.cached_tokens is not None]
    report.compare("Reused by each request", predicted=expected, measured=found, sequence=True)
    shares = [100 * one / (all_of.prompt_tokens or 1) for one, all_of in zip(found, watched, strict=True)]
    rows = [[number + 1, share, watched[number].node] for number, share in enumerate(shares)]
    columns = ["request, in the order of its time", "reused [% of its prompt]", "node"]
    report.chart(Chart("Three releases, from the traces", "growth", columns, rows, axis=columns[0]))
    assert [one.prompt_tokens for one in watched] == [call.prompt_tokens for call in calls]
    assert found == expected


# %% [markdown]
# With the clock every third request falls: the first one of a turn, whose clock is new. Where that is one in
# many, a hit rate over everything looks harmless; so `lmcache-tutorial watch` tells it by node too.


# %%
def test_lesson9_a_regression_is_found_in_the_traces_and_named(
    windows: Windows, stack: Stack, report: LessonReport, bars: Thresholds
) -> None:
    rates = {name: window.hit_rate for name, window in windows.items() if window.hit_rate is not None}
    report.rounds("Hit rate by release", {name: [rate] for name, rate in rates.items()}, unit="of 1")
    route = {name: read_traces.by_node(window.generations)[0] for name, window in windows.items()}
    ttft_s = {name: [one.ttft_s for one in node.generations if one.ttft_s] for name, node in route.items()}
    report.rounds("TTFT of the first request of each turn", ttft_s)
    lost = read_traces.fallen(list(windows.values()))
    assert lost == windows["with a clock"]
    units = {"block_tokens": stack.block_tokens, "chunk_tokens": stack.chunk_tokens}
    found = diagnose([json.dumps(one.document) for one in lost.generations], stack.renderer, **units)
    report.diagnosis("The requests since the hit rate fell", found)
    assert (found.culprits[0].kind, found.culprits[0].segment) == ("timestamp", "system")
    assert rates["mended"] > bars.min_hit_rate > rates["with a clock"]


# %% [markdown]
# Whoever has found a regression twice builds a gate. This one passes on the agent as it was. But a gate that
# was never seen to fail is decoration: so before you trust it, break what it guards.


# %%
def test_lesson9_the_gate_passes_on_the_agent_as_it_was(before: GateRun) -> None:
    assert before.exit_code == 0, before.output


REASONS = {
    CLOCK: "timestamp. Move the time to the end of the prompt",
    TOOLS: "tool_order. Sort the tools by name",
    SALT: "it has another cache_salt",
    CHUNK: "chunk tokens was",
}


@pytest.mark.parametrize("fault", REASONS)
def test_lesson9_the_gate_is_seen_to_fail(
    fault: str, faulty: Runs, stack: Stack, report: LessonReport, bars: Thresholds
) -> None:
    done, name = faulty[fault], GROUP if fault == CHUNK else fault
    (request,) = done.group(name)["requests"] or pytest.fail(done.output)
    expected = [request["predicted"]] * len(request["reused"])
    report.compare(f"Reused, {fault}", predicted=expected, measured=request["reused"], sequence=True)
    assert done.exit_code == 1
    assert done.group(name)["outcome"] == "failed"
    assert REASONS[fault] in done.said(name)
    assert request["reused"] == expected
    if fault == CHUNK:
        assert reusable_share(request["prompt_tokens"], WIDER * stack.chunk_tokens) < bars.min_hit_rate


# %% [markdown]
# The clock, the order of tools and the salts are seen in the prompts; the gate says where, and what to do.
# The chunk is seen in no prompt: the baseline says that the deployment is another one, and the hit rate what
# that costs. Mended, the gate turns green again. (Times are not judged here: hits say what broke.)


# %%
def test_lesson9_mended_the_gate_turns_green_again(mended: GateRun, report: LessonReport) -> None:
    group, head = mended.group(GROUP), mended.group(GROUP)["headline"]
    (request,), reused = group["requests"], group["requests"][0]["reused"][0]
    tokens = TokenSources(request["prompt_tokens"] - reused, engine=0, lmcache_l1=reused, lmcache_l2=0)
    report.headline(hit_rate=head["hit_rate"], tokens=tokens)
    assert mended.exit_code == 0, mended.output
    assert {one["outcome"] for one in group["claims"]} == {"passed"}


# %% [markdown]
# In your own repository this takes `lmcache-tutorial prompts from-langfuse`, `pytest --kv-url=http://…`, and
# `lmcache-tutorial baseline` when all is well (README.md, "Your prompts, on your deployment"). There `kv_ask`
# holds your own graph to a hit rate, node by node.

# %% [markdown]
# ## 5. Exercises
# In `tutorial_tests/exercises/`; a docstring says what to change. Stuck? `lmcache-tutorial hint 9.1`
# - `ex9_1_write_the_gate.py`: write the gate for a graph
# - `ex9_2_mend_what_the_log_shows.py`: mend what a log shows
