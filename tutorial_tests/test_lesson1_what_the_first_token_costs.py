"""Lesson 1. What the first token costs.

Question      What do you wait for before the first token, and how does the wait grow with the prompt?
You will see  that a cold prompt is prefilled whole, token by token; that TTFT grows with it; where the time
              goes; and that two clocks, the client's and the engine's own, agree about it.
Time          1 minute.
Hardware      any; 2 CPU cores are enough.
Builds on     nothing. *Prefill*, *TTFT*, *cold* and the rest: README.md, "Words we use".
"""

# %% [markdown]
# ## 1. The workload
# One manual in three lengths, and one short question at its end. The answer is a few tokens long: this
# lesson is about the wait before it. `Document` is a specification; the fixture `read` cuts it from the
# installed source of LMCache to a number of tokens that suits this machine.

# %%
from dataclasses import dataclass
from statistics import median

import pytest

from fixtures.benchmarks import FirstToken
from fixtures.corpus import Read
from fixtures.graphs import Reader
from lmcache_tutorial.ask import Asker
from lmcache_tutorial.config import LessonSizes
from lmcache_tutorial.corpus import Document, fresh
from lmcache_tutorial.metrics import clock_tolerance_s, clocks_differ_by, ratio_of_medians
from lmcache_tutorial.records import Call, Turn
from lmcache_tutorial.results import LessonReport
from lmcache_tutorial.stack import Stack
from lmcache_tutorial.tracing import Traces

SIZES = ("short", "medium", "long")
MANUALS = {size: Document("lmcache-source", size=size, seed=1) for size in SIZES}
QUESTION, OTHER = "Which class stores a chunk?", "What decides which chunk is evicted first?"


# %% [markdown]
# ## 2. The prediction
# A prompt that no cache knows is prefilled whole: the engine computes a key and a value for every token
# before it can produce the first one of its own. So the number to predict is the length of the prompt *as
# the server renders it*, template included. The server tells it without running the model.


# %%
@dataclass(frozen=True)
class Sample:
    """One size in one round: asked cold and again, the tokens to prefill, the detokenizer's start [s]."""

    size: str
    cold: Turn
    warm: Turn
    predicted: int
    detokenizer_s: float


# %% [markdown]
# ## 3. The measurement
# A nonce in front of the manual makes every copy new. Cold is not *assumed*, though: the first claim looks
# at what the engine and LMCache say they reused. The sizes take turns within a round, so that a slow moment
# of the machine does not fall on one size alone.


# %%
@pytest.fixture(scope="module")
def samples(ask: Asker, reader: Reader, read: Read, stack: Stack, sizes: LessonSizes) -> tuple[Sample, ...]:
    """Seven rounds of every size."""

    def sample(size: str) -> Sample:
        manual = fresh(read(MANUALS[size]))
        prompt = stack.tokenize(Reader.messages(manual, QUESTION))
        cold = ask(reader.graph, {"manual": manual, "question": QUESTION})
        warm = ask(reader.graph, {"manual": manual, "question": OTHER})
        return Sample(size, cold, warm, len(prompt), stack.renderer.detokenizer_start_s(prompt))

    return tuple(sample(size) for _ in range(sizes.rounds) for size in SIZES)


def ttft_s(samples: tuple[Sample, ...], size: str) -> list[float]:
    return [sample.cold.call.ttft_s for sample in samples if sample.size == size]


# %% [markdown]
# ## 4. The claims


# %%
def test_lesson1_a_cold_prompt_reuses_nothing(samples: tuple[Sample, ...], report: LessonReport) -> None:
    reused = [sample.cold.tokens.reused for sample in samples]
    report.compare("Reused tokens of a cold prompt", predicted=[0] * len(samples), measured=reused)
    assert reused == [0] * len(samples)


def test_lesson1_a_cold_prompt_is_prefilled_to_the_last_token(
    samples: tuple[Sample, ...], report: LessonReport
) -> None:
    predicted = [sample.predicted for sample in samples]
    computed = [sample.cold.tokens.computed for sample in samples]
    for place, size in enumerate(SIZES):  # the sizes take turns
        turns = slice(place, None, len(SIZES))
        report.compare(f"Prefilled, {size} manual", predicted=predicted[turns], measured=computed[turns])
    assert computed == predicted


def test_lesson1_ttft_grows_with_the_prompt(samples: tuple[Sample, ...], report: LessonReport) -> None:
    length = {size: median(s.predicted for s in samples if s.size == size) for size in SIZES}
    rows = [(length[s.size], s.cold.call.ttft_s, "cold") for s in samples]
    rows += [(length[s.size], s.warm.call.ttft_s, "asked again") for s in samples]
    columns = ["prompt [tokens]", "TTFT [s]", "ask"]
    report.chart("TTFT by prompt length", kind="growth", columns=columns, rows=rows, axis=columns[0])
    for size in SIZES:
        report.measure("TTFT", arm=f"cold, {size}", values=ttft_s(samples, size))
    steps = [ratio_of_medians(ttft_s(samples, b), ttft_s(samples, a)) for a, b in (SIZES[:2], SIZES[1:])]
    assert all(step.low > 1 for step in steps), steps


# %% [markdown]
# Where does the time go? The engine reports how long a request was queued and how long it was prefilled.
# What is left of the client's TTFT is the road: HTTP, the chat template, the tokenizer, and the way back. Ask
# again, and the prefill melts while the road stays: that road is the floor that no cache can go under.


# %%
def breakdown(calls: list[Call]) -> list[float]:
    """Split TTFT into prefill, queue and the rest, the median of each [s]."""
    parts = [
        (c.prefill_s, c.queue_s, c.ttft_s - c.prefill_s - c.queue_s)
        for c in calls
        if c.prefill_s and c.queue_s is not None
    ]
    assert len(parts) == len(calls), "the engine did not report its own times for every call"
    return [median(part) for part in zip(*parts, strict=True)]


def test_lesson1_the_prefill_is_what_you_wait_for(samples: tuple[Sample, ...], report: LessonReport) -> None:
    cold = breakdown([sample.cold.call for sample in samples if sample.size == "long"])
    warm = breakdown([sample.warm.call for sample in samples if sample.size == "long"])
    columns = ["ask", "prefill", "queue and look-up", "HTTP, template, (de)tokenizer"]
    rows = [["cold", *cold], ["asked again", *warm]]
    report.chart(
        "Where the time goes, long manual", kind="parts", columns=columns, rows=rows, axis="TTFT [s]"
    )
    assert cold[0] > sum(cold) / 2


# %% [markdown]
# Two clocks. The client starts when it sends the request and stops at the first chunk with content; the
# engine starts when the request arrives and stops when it has computed the token. Between them lie a
# loopback and a surprise: at the first token the server's detokenizer decodes the *whole prompt* once, which
# no clock of the engine shows. The same library does that step here; up to it the two clocks must agree.


# %%
@pytest.mark.parametrize("state", ["cold", "warm"])
def test_lesson1_client_and_engine_agree_on_ttft(
    state: str, samples: tuple[Sample, ...], report: LessonReport
) -> None:
    calls: list[Call] = [getattr(sample, state).call for sample in samples]
    client = [call.ttft_s for call in calls]
    engine = [call.engine_ttft_s for call in calls if call.engine_ttft_s is not None]
    sent = [e + sample.detokenizer_s for e, sample in zip(engine, samples, strict=True)]
    report.rounds(f"The client's TTFT less the engine's, {state}", {
        "all of it": [c - e for c, e in zip(client, engine, strict=True)],
        "less the detokenizer's first step": [c - s for c, s in zip(client, sent, strict=True)],
    })  # fmt: skip
    assert abs(clocks_differ_by(client, sent)) <= clock_tolerance_s(engine)


# %% [markdown]
# One turn as Langfuse saw it: the graph, its two nodes, and the call. The mark is the first token. The
# trace's TTFT starts with the span, so it holds the framework's share too; that share must be small.


# %%
def test_lesson1_the_trace_tells_the_same_ttft(
    samples: tuple[Sample, ...], traces: Traces, report: LessonReport
) -> None:
    turn = samples[len(SIZES) - 1].cold
    (generation,) = [span for span in traces.of(turn) if span.kind == "generation"]
    report.trace("one cold ask", turn.trace_id, traces.of(turn))
    assert generation.node == "answer"
    assert generation.ttft_s is not None
    differ = clocks_differ_by([generation.ttft_s], [turn.call.ttft_s])
    assert abs(differ) <= clock_tolerance_s([turn.call.ttft_s])


# %%
@pytest.mark.benchmark(group="lesson1")
def test_lesson1_benchmark_cold_ttft(first_token: FirstToken, read: Read) -> None:
    first_token.benchmark(read(MANUALS["long"]), warm=False)


# %% [markdown]
# ## 5. Exercises
# 1. Take `fresh` away and run the lesson twice on a kept stack (`--keep-stack`). Which claim notices?
# 2. Add the size `"short"` twice as long. Is TTFT a straight line, and what bends it?
# 3. Put the question in front of the manual. Does the cold TTFT change? Why would Lesson 2 care?
