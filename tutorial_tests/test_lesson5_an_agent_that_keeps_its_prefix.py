"""Lesson 5. An agent that keeps its prefix.

Question      A router, three experts, tools, many turns: what makes an agent's prompts reusable?
You will see  one agent with four ways to treat its history, request by request as predicted; which of them
              lose the prefix, and where; and what experts that start side by side share.
Words         policy, append-only, fan-out, trace, generation.
Time          from the reference run.
Hardware      any; 2 CPU cores are enough.
Builds on     Lesson 4: static first, dynamic last.
"""

# %% [markdown]
# ## 1. The workload
# A conversation of five turns about one manual. Each turn makes three requests: route the question to an
# expert, let the expert call a tool, answer. The graph is the same in every arm; only the *policy* differs,
# the few lines that decide with which messages a request begins: all of the history (*append-only*), its last
# messages, or a system prompt that is written anew. A turn now holds three calls: `turn.calls`. The graph
# stands in `fixtures/agents.py`: the router chooses one of three names, and one node plays that expert. The
# model is small, so it may only choose from a list.

# %%
import json
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, SystemMessage

from lmcache_tutorial.asking.ask import Asker
from lmcache_tutorial.diagnosis.diagnose import diagnose
from lmcache_tutorial.graphs.agent import EXPERTS, Agents, Policy, predicted_reuse_of
from lmcache_tutorial.lessons.progress import Progress
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities.records import Call, TokenSources, Turn
from lmcache_tutorial.quantities.sources import source
from lmcache_tutorial.quantities.statistics import hit_rate, total
from lmcache_tutorial.report.results import LessonReport
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.traces.record import Traces

MANUAL, PASTED = (Document("lmcache-source", size=size, seed=5) for size in ("long", "short"))
FAN_OUT_MANUAL = Document("lmcache-source", size="medium", seed=5)
TURNS = 5  # each question pastes a fifth of a short document
KEPT, STEP = 2, 4  # messages that a trim keeps, and the large step in which it drops
Talks = dict[str, list[Turn]]  # the name of a policy -> the turns of its conversation


def append_only(manual: str, history: Sequence[BaseMessage]) -> list[BaseMessage]:
    return [SystemMessage(manual), *history]


def rewritten(manual: str, history: Sequence[BaseMessage]) -> list[BaseMessage]:
    topic = str(history[-2].content)[:40] if history else "nothing yet"
    return [SystemMessage(f"The user asks about: {topic}\n\n{manual}"), *history]


def sliding(manual: str, history: Sequence[BaseMessage]) -> list[BaseMessage]:
    return [SystemMessage(manual), *history[-KEPT:]]


def large_steps(manual: str, history: Sequence[BaseMessage]) -> list[BaseMessage]:
    dropped = max(0, len(history) - KEPT) // STEP * STEP
    return [SystemMessage(manual), *history[dropped:]]


POLICIES: dict[str, Policy] = {
    "append only": append_only,
    "large steps": large_steps,
    "sliding trim": sliding,
    "rewritten": rewritten,
}


# %% [markdown]
# ## 2. The prediction
# Every request is rendered as the server renders it, tools and tool calls included, and compared with all
# that the conversation has asked and answered before: an engine keeps what it generates, too. The largest
# shared prefix, rounded down, is what must be reused (`predicted_reuse_of`, in
# `lmcache_tutorial/graphs/agent.py`). Which policy is best? Which is worst, and is a sliding window any good?


# %% [markdown]
# ## 3. The measurement
# Each arm talks about a new copy of the manual. The requests of a turn come one after the other, so each has
# its own counts. LMCache runs beside the engine, but the engine's own cache serves them, as in Lesson 2.


# %%
@pytest.fixture(scope="module")
def talks(ask: Asker, agents: Agents, read: Read, progress: Progress) -> Talks:
    """Five turns under each policy."""
    pasted = read(PASTED)
    width = len(pasted) // TURNS

    def talk(policy: Policy) -> list[Turn]:
        graph, manual = agents.talk(policy), fresh(read(MANUAL))
        turns = []
        for number in range(TURNS):
            question = f"{pasted[number * width :][:width]}\nWhat is this?"
            state = {"manual": manual, "question": question}
            turns.append(ask(graph, state, thread=manual[:40], start="as it is" if number else "cold"))
        return turns

    policies = progress.rounds(POLICIES.items(), len(POLICIES), "lesson 5: policy")
    return {name: talk(policy) for name, policy in policies}


@pytest.fixture(scope="module")
def fan_outs(ask: Asker, agents: Agents, read: Read) -> dict[str, Turn]:
    """Three experts side by side over one cold manual; and the same after one short request about it."""
    graphs = {"side by side": agents.fan_out(), "one request ahead": agents.fan_out(warm_up=True)}
    return {name: ask(graph, {"manual": fresh(read(FAN_OUT_MANUAL))}) for name, graph in graphs.items()}


def calls(turns: Sequence[Turn]) -> list[Call]:
    return [call for turn in turns for call in turn.calls]


def warm(turns: Sequence[Turn]) -> TokenSources:
    """The prompt tokens of all turns but the first, which was cold."""
    return total(turn.tokens for turn in turns[1:])


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson5_every_request_reuses_what_was_predicted(
    talks: Talks, stack: Stack, report: LessonReport
) -> None:
    assert all(call.generated for turns in talks.values() for call in calls(turns))
    expected = {name: predicted_reuse_of(stack, calls(turns)) for name, turns in talks.items()}
    found = {name: [c.tokens.reused for c in calls(turns) if c.tokens] for name, turns in talks.items()}
    report.compare_arms("Reused by each request", predicted=expected, measured=found)
    assert found == expected


def test_lesson5_an_append_only_agent_is_above_the_hit_rate_bar(
    talks: Talks, report: LessonReport, traces: Traces, bars: Thresholds
) -> None:
    turns, tokens = talks["append only"], warm(talks["append only"])
    report.headline(hit_rate=hit_rate([tokens]), tokens=tokens)
    assert tokens.lmcache == 0
    windows = {name: [turn.tokens for turn in talk[1:]] for name, talk in talks.items()}
    requests = {name: len(calls(talk[1:])) for name, talk in talks.items()}
    report.served("Who served the warm turns", windows, calls=requests)
    report.trace("the last turn, append only", turns[-1].trace_id, traces.of(turns[-1]))
    assert hit_rate([tokens]) > bars.min_hit_rate


# %% [markdown]
# What would you see of this in production, with no counters at hand? Langfuse's handler for LangChain leaves
# an observation of type `generation` for every request. Three of its fields are enough. `completionStartTime`
# is the first streamed piece, so TTFT is that less `startTime`. `usageDetails` splits the prompt into
# `input`, what was prefilled, and `input_cache_read`, what was reused: the hit rate is the second over the
# sum of both.


# %%
def test_lesson5_each_node_tells_its_ttft_and_its_hits_in_the_trace(
    talks: Talks, report: LessonReport, traces: Traces
) -> None:
    turns = talks["append only"][1:]
    spans = [span for turn in turns for span in traces.of(turn) if span.kind == "generation"]
    nodes = {node: [span for span in spans if span.node == node] for node in ("route", "expert", "answer")}
    assert all(span.ttft_s and span.cached_tokens for span in spans)
    ttft = {node: [span.ttft_s for span in found if span.ttft_s] for node, found in nodes.items()}
    by = dict.fromkeys(ttft, source(warm(talks["append only"])))
    report.rounds("TTFT by node, from the trace", ttft, served_by=by)
    cached = sum(span.cached_tokens or 0 for span in spans)
    assert cached / sum(span.prompt_tokens or 0 for span in spans) == hit_rate([warm(talks["append only"])])
    assert {node: len(found) for node, found in nodes.items()} == dict.fromkeys(nodes, TURNS - 1)


# %% [markdown]
# Do not judge a policy by its hit rate alone. Most of every prompt is the manual, and the trims reuse it too;
# so their hit rates lie close to the append-only one. What they *prefill* lies further apart, and the prefill
# is what users wait for. Why would anybody trim, then? An append-only history grows until the context is
# full. When that comes near, drop old messages, in large steps.


# %%
def test_lesson5_every_other_policy_reuses_less_and_prefills_more(talks: Talks, report: LessonReport) -> None:
    rates = {name: hit_rate([warm(turns)]) for name, turns in talks.items()}
    prefill = {name: warm(turns).computed for name, turns in talks.items()}
    report.rounds("Hit rate of the warm turns", {name: [rate] for name, rate in rates.items()}, unit="of 1")
    arms, by = {name: [tokens] for name, tokens in prefill.items()}, dict.fromkeys(prefill, "computed")
    report.rounds("Prefilled in the warm turns", arms, unit="tokens", served_by=by)
    assert rates["append only"] > rates["large steps"] > rates["sliding trim"] > rates["rewritten"]
    assert prefill["append only"] < prefill["large steps"] < prefill["sliding trim"] < prefill["rewritten"]
    apart = prefill["sliding trim"] / prefill["append only"]
    assert apart > rates["append only"] / rates["sliding trim"]


# %% [markdown]
# Why do they reuse less? `diagnose` reads the requests that were sent, as it would read the log of a
# deployment (`lmcache-tutorial diagnose FILE.jsonl`), and names the segment in which the prefix breaks. It
# gets the first request of each turn, the cold one too, so its hit rate is not the headline's, which counts
# all three requests of the warm turns.


# %%
@pytest.mark.usefixtures("chunks")
def test_lesson5_the_diagnosis_names_where_the_prefix_breaks(
    talks: Talks, stack: Stack, report: LessonReport
) -> None:
    culprits: dict[str, Any] = {}
    for name, turns in talks.items():
        lines = [json.dumps(turn.calls[0].request) for turn in turns]  # the first request of each turn
        found = diagnose(
            lines, stack.renderer, block_tokens=stack.block_tokens, chunk_tokens=stack.chunk_tokens
        )
        report.diagnosis(f"{name}, the first request of each turn, the cold one too", found)
        culprits[name] = (found.culprits[0].kind, found.culprits[0].segment) if found.culprits else None
    assert culprits == {
        "append only": None,
        "large steps": ("history_trimmed", "history"),
        "sliding trim": ("history_trimmed", "history"),
        "rewritten": ("user_text_above_static", "system"),
    }


# %% [markdown]
# Three experts start side by side on a cold manual (a *fan-out*). Must each of them prefill it, since none
# has finished when the next begins? Within one vLLM engine, no: its scheduler hands on the blocks of a prompt
# while it is being prefilled, so the manual is prefilled once. They all wait for it, as the chart shows of
# one turn each; with one request ahead, that request waits. Only the token counts are claimed.


# %%
def test_lesson5_experts_side_by_side_share_one_prefill(
    fan_outs: dict[str, Turn], stack: Stack, report: LessonReport
) -> None:
    windows = {name: [turn.tokens] for name, turn in fan_outs.items()}
    requests = {name: len(turn.calls) for name, turn in fan_outs.items()}
    report.served("Three experts over one manual", windows, calls=requests)
    waits = {name: [c.ttft_s for c in turn.calls if c.node in EXPERTS] for name, turn in fan_outs.items()}
    report.rounds("TTFT of the three experts", waits)
    expected = {name: sorted(predicted_reuse_of(stack, turn.calls)) for name, turn in fan_outs.items()}
    assert all(min(counts[1:]) > 0 for counts in expected.values())
    found = {name: sorted(call.cached_tokens for call in turn.calls) for name, turn in fan_outs.items()}
    report.compare_arms("Reused by each request", predicted=expected, measured=found)
    assert found == expected


# %% [markdown]
# ## 5. Exercises
# In `tutorial_tests/exercises/`; a docstring says what to change. Stuck? `lmcache-tutorial hint 5.1`
# - `ex5_1_trim_in_steps.py`: choose the steps in which a conversation is trimmed
# - `ex5_2_let_the_fan_out_wait_once.py`: make a fan-out wait once
