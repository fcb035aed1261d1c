"""Hit rate and TTFT by node and over time, from traces alone; and what broke the prefix where it fell."""

import json

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.traces.watched import by_node, fallen, generations, over_time

MANUAL = " ".join(f"Rule {number}: the valve {number * 7 % 11} stays closed." for number in range(80))
SECOND_NS = 1_000_000_000
BEGIN_NS = 1_795_733_495 * SECOND_NS


def attribute(key, value):
    return {"key": key, "value": {"stringValue": value}}


def span(number, node="expert", cached=960, clock=False, first_s=0.1):
    """A generation, a second after the one before; with a clock in its system prompt nothing is reused."""
    start = BEGIN_NS + number * SECOND_NS
    now = f"It is 2026-11-27T10:00:{number:02d}Z. " if clock else ""
    asked = [
        {"role": "system", "content": now + MANUAL},
        {"role": "user", "content": f"Question {number}?"},
    ]
    seconds = (start + first_s * SECOND_NS) / 1e9
    moment = f"2026-11-26T22:{51 + int(seconds - 1795733460) // 60:02d}:{(seconds - 1795733460) % 60:09.6f}Z"
    usage = {"input": 1000 - cached, "input_cache_read": cached, "output": 1}
    attributes = [
        attribute("langfuse.observation.type", "generation"),
        attribute("langfuse.observation.metadata.langgraph_node", node),
        attribute("langfuse.observation.completion_start_time", json.dumps(moment)),
        attribute("langfuse.observation.usage_details", json.dumps(usage)),
        attribute("langfuse.observation.input", json.dumps(asked)),
    ]
    return {"traceId": f"{number:032x}", "startTimeUnixNano": str(start), "attributes": attributes}


def document(*spans):
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def test_nodes_and_times_are_told_apart():
    chain = {"startTimeUnixNano": "1", "attributes": [attribute("langfuse.observation.type", "chain")]}
    found = generations([document(span(2, "router", 500), chain), document(span(1)), document(span(3))])
    nodes = {window.name: window for window in by_node(found)}
    assert list(nodes) == ["expert", "router"]
    assert nodes["expert"].hit_rate == 0.96
    assert nodes["router"].hit_rate == 0.5
    assert nodes["expert"].ttft_s == pytest.approx(0.1, abs=1e-3)
    assert [len(part.generations) for part in over_time(found, 2)] == [2, 1]


def test_langfuses_own_form_is_read_too():
    observation = {
        "type": "GENERATION",
        "startTime": "2026-11-27T10:00:00.000Z",
        "completionStartTime": "2026-11-27T10:00:00.250Z",
        "usageDetails": {"input": 100, "input_cache_read": 900},
        "metadata": {"langgraph_node": "expert"},
    }
    silent = {"type": "GENERATION", "startTime": "2026-11-27T10:00:01.000Z", "usageDetails": {"input": 5}}
    found = generations([{"id": "t", "observations": [silent, observation, {"type": "SPAN"}]}])
    assert [(one.prompt_tokens, one.cached_tokens, one.ttft_s) for one in found] == [
        (1000, 900, 0.25),
        (5, None, None),
    ]
    assert by_node(found)[1].hit_rate is None


def test_a_fall_is_found_and_named(tmp_path):
    spans = [span(number) for number in range(12)] + [span(n, cached=0, clock=True) for n in range(12, 20)]
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(json.dumps(document(one)) for one in spans))
    done = CliRunner().invoke(app, ["watch", str(path), "--parts", "5"])
    if "not prepared" in done.output:
        pytest.skip("the tutorial's own model is not prepared here")
    assert done.exit_code == 1, done.output
    assert "the hit rate fell at" in done.output
    assert "timestamp" in done.output
    assert "Move the time to the end of the prompt" in done.output


def test_what_did_not_fall_ends_well(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(json.dumps(document(span(number))) for number in range(6)))
    done = CliRunner().invoke(app, ["watch", str(path)])
    assert done.exit_code == 0, done.output
    assert "the hit rate did not fall" in done.output
    assert fallen(over_time(generations([document(span(1))]), 2)) is None


@pytest.mark.parametrize(("text", "says"), [("{}", "no generation"), ("no json", "holds no traces")])
def test_what_holds_none_is_said(tmp_path, text, says):
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    done = CliRunner().invoke(app, ["watch", str(path)])
    assert done.exit_code == 2
    assert says in done.output
