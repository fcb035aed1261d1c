"""What a Langfuse project holds: its pages, its patience, its refusals; with a stand-in for the API."""

import json

import httpx
import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.prompts.prompts_file import read_prompts
from lmcache_tutorial.traces import langfuse_api
from lmcache_tutorial.traces.langfuse_api import LangfuseError, Wanted, project_client, traces

QUESTIONS = ["Where is it?", "What does it cost?", "Where is it?"]


def trace(number):
    messages = [
        {"role": "system", "content": "A manual."},
        {"role": "user", "content": QUESTIONS[number % 3]},
    ]
    generation = {
        "type": "GENERATION",
        "startTime": f"2026-11-27T10:00:{59 - number:02d}Z",
        "input": messages,
    }
    return {"id": f"t{number}", "observations": [generation, {"type": "SPAN", "input": {"a": 1}}]}


class Langfuse(httpx.BaseTransport):
    """Three pages of traces; it may first say that it was asked too often, or refuse."""

    def __init__(self, *first):
        self.first, self.asked = list(first), []

    def handle_request(self, request):
        self.asked.append(request.url)
        if self.first:
            return self.first.pop(0)
        if request.url.path == "/api/public/traces":
            page, limit = int(request.url.params["page"]), 2
            data = [{"id": f"t{n}"} for n in range((page - 1) * limit, min(5, page * limit))]
            return httpx.Response(200, json={"data": data, "meta": {"page": page, "totalPages": 3}})
        return httpx.Response(200, json=trace(int(request.url.path.rsplit("t", 1)[1])))


def client(*first):
    return httpx.Client(base_url="http://langfuse", transport=Langfuse(*first))


def test_all_pages_are_read_up_to_a_limit():
    assert [one["id"] for one in traces(client(), Wanted(), 100)] == ["t0", "t1", "t2", "t3", "t4"]
    assert [one["id"] for one in traces(client(), Wanted(), 3)] == ["t0", "t1", "t2"]


def test_the_wish_is_in_the_query():
    asked = client()
    list(traces(asked, Wanted(tag="gate", name="agent", since="2026-11-01T00:00:00Z"), 1))
    query = dict(asked._transport.asked[0].params)
    assert query["tags"] == "gate"
    assert query["name"] == "agent"
    assert query["fromTimestamp"] == "2026-11-01T00:00:00Z"
    assert query["orderBy"] == "timestamp.desc"
    assert "toTimestamp" not in query


def test_a_server_that_was_asked_too_often_is_left_alone_for_a_while(monkeypatch):
    slept = []
    monkeypatch.setattr(langfuse_api.time, "sleep", slept.append)
    busy = httpx.Response(429, headers={"retry-after": "7"})
    assert len(list(traces(client(busy), Wanted(), 100))) == 5
    assert slept == [7.0]
    with pytest.raises(LangfuseError, match="HTTP 429"):
        list(traces(client(httpx.Response(429, headers={"retry-after": "3600"})), Wanted(), 100))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(401), "refuses the keys"),
        (httpx.Response(500), "HTTP 500"),
        (httpx.Response(200, text="<html>"), "no JSON object"),
        (httpx.Response(200, json=[]), "no JSON object"),
    ],
)
def test_what_is_no_answer_is_one_clear_error(answer, says):
    with pytest.raises(LangfuseError, match=says):
        list(traces(client(answer), Wanted(), 1))


def test_without_keys_it_says_which_are_missing(monkeypatch):
    for name in (*langfuse_api.HOSTS, *langfuse_api.KEYS):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LangfuseError, match="LANGFUSE_PUBLIC_KEY"):
        project_client()


def test_a_project_becomes_a_file_of_prompts(monkeypatch, tmp_path):
    monkeypatch.setattr("lmcache_tutorial.cli.prompts.project_client", client)
    target = tmp_path / "agent.prompts.jsonl"
    done = CliRunner().invoke(app, ["prompts", "from-langfuse", "--into", str(target), "--tag", "gate"])
    assert done.exit_code == 0, done.output
    (group,) = read_prompts(target)
    assert group.name == "agent"
    asked = [prompt.body["messages"][1]["content"] for prompt in group.prompts]
    assert asked == ["What does it cost?", "Where is it?"]  # in the order of their times, each once
    assert "left out: 3 the same again" in done.output


def test_an_export_becomes_a_file_of_prompts(tmp_path):
    export, target = tmp_path / "export.jsonl", tmp_path / "agent.prompts.jsonl"
    export.write_text("\n".join(json.dumps(trace(number)) for number in range(3)))
    arguments = ["prompts", "from-langfuse", str(export), "--into", str(target), "--most", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert len(read_prompts(target)[0].prompts) == 1
    assert "1 beyond --most" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--into", "agent.jsonl"], "not collected by pytest"),
        (["absent.jsonl"], "cannot be read"),
        (["--most", "0"], "--most must be 1 or more"),
        (["export.jsonl", "--into", "absent/a.prompts.jsonl"], "cannot be written"),
    ],
)
def test_what_cannot_be_is_said(arguments, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export.jsonl").write_text(json.dumps(trace(1)))
    done = CliRunner().invoke(app, ["prompts", "from-langfuse", *arguments])
    assert done.exit_code == 2
    assert says in done.output


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (httpx.Response(200, json={"data": [{"id": "a b"}]}), "http://langfuse/project/a%20b/traces/"),
        (httpx.Response(200, json={"data": []}), ""),
        (httpx.Response(200, text="<html>"), ""),
        (httpx.Response(401, json={}), ""),
    ],
)
def test_where_a_trace_is_seen(answer, found):
    transport = httpx.MockTransport(lambda request: answer)
    with httpx.Client(base_url="http://user:secret@langfuse", transport=transport) as client:
        assert langfuse_api.traces_address(client, 1) == found
        assert langfuse_api.traces_address(client, 0) == ""


def test_a_prompt_of_a_trace_is_one_that_a_server_takes(tmp_path):
    call = {"id": "1", "type": "tool_call", "name": "look_up", "args": {"word": "chunk"}}
    messages = [
        {"role": "user", "content": "Look it up."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    (tmp_path / "export.jsonl").write_text(json.dumps({"type": "GENERATION", "input": messages}))
    done = CliRunner().invoke(
        app,
        [
            "prompts",
            "from-langfuse",
            str(tmp_path / "export.jsonl"),
            "--into",
            str(tmp_path / "a.prompts.jsonl"),
        ],
    )
    assert done.exit_code == 0, done.output
    (group,) = read_prompts(tmp_path / "a.prompts.jsonl")
    function = group.prompts[0].body["messages"][1]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == {"word": "chunk"}
