"""Traces: the SDK's spans, OTLP's JSON form, and that nothing leaves the machine or holds a key."""

import gc
import json
import tracemalloc
from base64 import b64encode
from typing import TypedDict

import pytest
from google.protobuf.json_format import ParseDict
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lmcache_tutorial.quantities.records import TokenSources, Turn
from lmcache_tutorial.traces.record import Traces

SECRETS = {
    "LANGFUSE_PUBLIC_KEY": "pk-lf-from-the-environment",
    "LANGFUSE_SECRET_KEY": "sk-lf-from-the-environment",
    "LANGFUSE_BASE_URL": "http://127.0.0.1:9/somewhere",
    "LANGFUSE_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
    "OTEL_RESOURCE_ATTRIBUTES": "key=otel-from-the-environment",
}


class State(TypedDict):
    text: str


def graph():
    usage = {
        "input_tokens": 100,
        "output_tokens": 1,
        "total_tokens": 101,
        "input_token_details": {"cache_read": 64},
    }
    model = GenericFakeChatModel(messages=iter([AIMessage("Paris", usage_metadata=usage)]))
    built = StateGraph(State)
    built.add_node("answer", lambda state: {"text": str(model.invoke(state["text"]).content)})
    built.add_edge(START, "answer")
    built.add_edge("answer", END)
    return built.compile()


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    traces = Traces(tmp_path, "run")
    trace_id, handler = traces.handler()
    graph().invoke({"text": "Where?"}, config={"callbacks": [handler]})
    yield traces, Turn(trace_id, (), TokenSources(36, 64, 0, 0), {}), tmp_path / "run.jsonl"
    traces.close()


def test_a_turn_is_recorded_node_by_node_whatever_the_environment_says(recorded):
    traces, turn, _ = recorded
    spans = traces.of(turn)
    (generation,) = [span for span in spans if span.kind == "generation"]
    assert generation.node == "answer"
    assert (generation.prompt_tokens, generation.cached_tokens) == (100, 64)
    assert {span.name for span in spans} >= {"LangGraph", "answer"}
    assert spans[0].start_s == 0


def test_a_file_turns_back_into_protobuf(recorded):
    traces, turn, path = recorded
    traces.of(turn)
    count = 0
    for line in path.read_text().splitlines():
        request = json.loads(line)
        for resource in request["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    assert span["traceId"] == turn.trace_id
                    assert isinstance(span["kind"], int)
                    assert len(span["spanId"]) == 16
                    count += 1
                    for name in ("traceId", "spanId", "parentSpanId"):  # protobuf's own form wants base64
                        if name in span:
                            span[name] = b64encode(bytes.fromhex(span[name])).decode()
        parsed = ParseDict(request, ExportTraceServiceRequest())
        assert parsed.resource_spans[0].scope_spans[0].spans[0].trace_id.hex() == turn.trace_id
    assert count == len(traces.of(turn))


def test_no_key_of_the_environment_is_written(recorded):
    traces, turn, path = recorded
    traces.of(turn)
    assert "from-the-environment" not in path.read_text()


def test_prompts_are_in_the_file_and_not_in_memory(tmp_path):
    traces = Traces(tmp_path, "long")
    characters, turns = 200_000, 20
    turn(traces, "warm-up")
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ids = [turn(traces, str(number) * characters) for number in range(turns)]
    spans = [traces.by_id(trace_id) for trace_id in ids]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    traces.close()
    assert all(len(found) == len(spans[0]) > 1 for found in spans)
    assert (tmp_path / "long.jsonl").stat().st_size > characters * turns
    assert grown < characters * turns / 4


def turn(traces, text):
    trace_id, handler = traces.handler()
    graph().invoke({"text": text}, config={"callbacks": [handler]})
    return trace_id


def test_a_turn_of_another_run_is_an_error(recorded):
    traces, _, _ = recorded
    with pytest.raises(LookupError, match="no span of trace"):
        traces.by_id("0" * 32)


def test_a_masked_file_holds_no_prompt_and_the_same_figures(tmp_path):
    traces = Traces(tmp_path, "masked", mask=True)
    name = turn(traces, "a text that nobody shall read")
    spans = traces.by_id(name)
    traces.close()
    told = (tmp_path / "masked.jsonl").read_text()
    assert "nobody shall read" not in told
    assert "(masked)" in told
    assert "langgraph_node" in told
    (generation,) = [span for span in spans if span.kind == "generation"]
    assert (generation.prompt_tokens, generation.cached_tokens) == (100, 64)


def test_traces_carry_their_lesson_and_their_run_and_have_scores(tmp_path):
    now = ["lesson5"]
    traces = Traces(tmp_path, "run", lesson_now=lambda: now[0])
    assert traces.metadata == {"langfuse_session_id": "run", "langfuse_tags": ["lesson5"]}
    first = turn(traces, "Where?")
    now[0] = ""
    assert traces.metadata["langfuse_tags"] == []
    second = turn(traces, "Where?")
    traces.write_scores({"lesson5": 0.93, "lesson6": 0.8})
    traces.write_scores({"lesson5": 0.93, "lesson6": 0.8})  # the same ids again
    traces.close()
    lines = (tmp_path / "run-scores.jsonl").read_text().splitlines()
    bodies = [json.loads(line)["body"] for line in lines]
    told = [(body["traceId"], body["name"], body["value"]) for body in bodies]
    assert told == [
        (first, "kv_hit_rate", 0.64),
        (first, "ttft_drop", 0.93),
        (second, "kv_hit_rate", 0.64),
    ]
    assert len({body["id"] for body in bodies}) == 3


def test_a_graph_that_is_run_with_the_metadata_leaves_tag_and_session_in_its_spans(tmp_path):
    traces = Traces(tmp_path, "run", lesson_now=lambda: "lesson5")
    trace_id, handler = traces.handler()
    graph().invoke({"text": "Where?"}, config={"callbacks": [handler], "metadata": traces.metadata})
    traces.by_id(trace_id)
    traces.close()
    told = (tmp_path / "run.jsonl").read_text()
    assert '"session.id"' in told
    assert '"langfuse.trace.tags"' in told
    assert '"lesson5"' in told
