"""Forms of logs: what is read, what is not and why; no input raises anything but the documented error."""

import gzip
import json
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.diagnosis.logs import BrokenLineError, Log, open_log, parse_line
from lmcache_tutorial.diagnosis.turns import taken_apart
from lmcache_tutorial.prompts.chat_template import IMAGE_MARK

HI = {"role": "user", "content": "Hi"}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "F", "parameters": {"type": "object"}},
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"q": 1}}}


def read(*lines):
    log = Log([line if isinstance(line, str) else json.dumps(line) for line in lines])
    return log, list(log)


def refusal(line):
    """Return why a line cannot be read; ``None`` if it can."""
    try:
        parse_line(line)
    except BrokenLineError as error:
        return str(error)
    return None


def only(document):
    log, found = read(document)
    assert log.reasons == {}
    assert len(found) == 1
    return found[0]


# Each form of one and the same talk: a system message and a question.
FORMS = {
    "openai": {"messages": [{"role": "system", "content": "Be brief."}, HI]},
    "batch": {"custom_id": "1", "body": {"messages": [{"role": "system", "content": "Be brief."}, HI]}},
    "responses": {"instructions": "Be brief.", "input": "Hi"},
    "responses with items": {
        "url": "/v1/responses",
        "body": {
            "instructions": "Be brief.",
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        },
    },
    "anthropic": {"system": [{"type": "text", "text": "Be brief."}], "messages": [HI]},
    "litellm": {
        "call_type": "acompletion",
        "messages": [{"role": "system", "content": "Be brief."}, HI],
        "model_parameters": {},
    },
    "langfuse": {"type": "GENERATION", "input": json.dumps([{"role": "system", "content": "Be brief."}, HI])},
    "langchain": {
        "messages": [{"type": "system", "content": "Be brief."}, {"type": "human", "content": "Hi"}]
    },
    "langchain's dumps": {
        "messages": [
            {"lc": 1, "id": ["langchain", "SystemMessage"], "kwargs": {"content": "Be brief."}},
            {"lc": 1, "id": ["langchain", "HumanMessage"], "kwargs": {"content": "Hi"}},
        ]
    },
    "a bare list": [{"role": "system", "content": "Be brief."}, HI],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_form_of_a_request_is_read(form):
    found = only(form)
    assert [(m["role"], m["content"]) for m in found.messages] == [("system", "Be brief."), ("user", "Hi")]


def otlp(*spans):
    attributes = [
        [{"key": key, "value": {"stringValue": value}} for key, value in span.items()] for span in spans
    ]
    return {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": a} for a in attributes]}]}]}


def generation(given):
    return {"langfuse.observation.type": "generation", "langfuse.observation.input": given}


def test_a_span_that_cannot_be_read_does_not_take_its_line_along():
    log, found = read(otlp(generation(json.dumps([HI])), generation("{"), generation(json.dumps([HI]))))
    assert len(found) == 2
    assert log.broken == [1]
    assert [reason[:7] for reason in log.reasons] == ["a span:"]


def test_spans_of_the_genai_conventions_are_read_and_others_are_named():
    parts = [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]
    instructions = [{"type": "text", "content": "Be brief."}]
    found = only(
        otlp(
            {
                "gen_ai.input.messages": json.dumps(parts),
                "gen_ai.system_instructions": json.dumps(instructions),
            }
        )
    )
    assert [m["content"] for m in found.messages] == ["Be brief.", "Hi"]
    log, found = read(otlp({"llm.input_messages.0.message.role": "user"}))
    assert found == []
    assert "needed: gen_ai.input.messages" in next(iter(log.reasons))


def test_attributes_without_a_value_and_lists_of_anything_are_no_requests():
    for document in (
        {"resourceSpans": [1]},
        {"resourceSpans": None},
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{"key": "x"}, 3]}]}]}]},
    ):
        log, found = read(document)
        assert (found, log.broken, log.other) == ([], [], 1)


def test_tool_definitions_among_the_messages_are_tools():
    found = only({"type": "GENERATION", "input": [HI, {"role": "tool", "content": TOOL}]})
    assert [m["role"] for m in found.messages] == ["user"]
    assert found.tools == (TOOL,)


def test_tools_are_found_where_proxies_keep_them_and_get_the_servers_form():
    bare = {"name": "f", "description": "F", "input_schema": {"type": "object"}}
    flat = {"type": "function", "name": "f", "description": "F", "parameters": {"type": "object"}}
    kept = [
        {"tools": [bare]},
        {"model_parameters": {"tools": [flat]}},
        {"optional_params": {"tools": [TOOL]}},
    ]
    for tools in kept:
        assert only({"messages": [HI], **tools}).tools == (TOOL,)
    assert only({"messages": [HI], "functions": [{"name": "f"}]}).tools == ()  # vLLM ignores these


CALLS = {
    "openai": {"tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"q": 1}'}}]},
    "langchain": {"tool_calls": [{"name": "f", "args": {"q": 1}, "id": "c", "type": "tool_call"}]},
    "anthropic": {"content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"q": 1}}]},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_tool_calls_of_all_forms_become_one(call):
    found = only({"messages": [HI, {"role": "assistant", "content": None, **call}]})
    assert found.messages[1]["tool_calls"] == [CALL]


def test_a_call_without_arguments_is_read_and_one_with_broken_ones_is_named():
    def log_with(function):
        return read(
            {
                "messages": [
                    HI,
                    {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
                ]
            }
        )

    _, found = log_with({"name": "f"})
    assert found[0].messages[1]["tool_calls"][0]["function"]["arguments"] == {}
    log, found = log_with({"name": "f", "arguments": '{"q": '})
    assert (found, log.broken) == ([], [1])
    assert "arguments of a call of 'f' are no JSON" in next(iter(log.reasons))


def test_the_results_of_tools_in_an_anthropic_message_are_counted():
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "42"}]}
    found = only({"messages": [{"role": "user", "content": [result, {"type": "text", "text": "So?"}]}]})
    assert [(m["role"], m["content"]) for m in found.messages] == [("tool", "42"), ("user", "So?")]


def test_calls_and_outputs_of_the_responses_api_are_read():
    items = [
        {"type": "message", "role": "user", "content": "Hi"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
    ]
    found = only({"input": items})
    assert [m["role"] for m in found.messages] == ["user", "assistant", "tool"]


def test_a_line_that_vllm_takes_out_of_a_system_message_is_taken_out():
    header = "x-anthropic-billing-header: cc_version=2; cch=36ee5;"
    found = only({"messages": [{"role": "system", "content": f"{header}\nBe brief."}, HI]})
    assert found.messages[0]["content"] == "Be brief."
    part = {"type": "text", "text": header}
    found = only({"system": [part, {"type": "text", "text": "Be brief."}], "messages": [HI]})
    assert found.messages[0]["content"] == "Be brief."


def test_text_in_lists_of_strings_is_kept_and_images_differ_by_content():
    assert only({"messages": [{"role": "user", "content": ["text"]}]}).messages[0]["content"] == "text"
    pictures = []
    for name in "ab":
        part = {"type": "image_url", "image_url": {"url": f"https://example.org/{name}.png"}}
        request = only({"messages": [{"role": "user", "content": [part]}]})
        assert request.images == 1
        pictures.append(request.messages[0]["content"])
    assert pictures[0] != pictures[1]
    assert pictures[0].startswith(IMAGE_MARK)


UNREAD = {
    "gemini": ({"contents": [{"parts": []}]}, "an object with the keys contents is not a form that is read"),
    "no messages": ({"messages": []}, "no messages"),
    "an earlier response": ({"previous_response_id": "r", "input": "Hi"}, "previous_response_id"),
    "a prompt of another kind": ({"prompt": [["a"], 1]}, "needed: one text"),
    "a part of another kind": (
        {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
        "hologram",
    ),
    "no role": ({"messages": [{"content": "x"}]}, "no role"),
    "a number": (3, "neither"),
    "deep": ("[" * 100_000, "nested"),
    "no json": ('{"messages"', "no JSON"),
}


@pytest.mark.parametrize(("line", "word"), UNREAD.values(), ids=UNREAD)
def test_what_is_not_read_is_named_with_what_is_needed(line, word):
    log, found = read(json.dumps({"messages": [HI]}), line)
    assert len(found) == 1
    assert log.broken == [2]
    assert word in next(iter(log.reasons))


def test_models_adapters_and_salts_are_told_apart():
    assert only({"model": "a", "cache_salt": "s", "messages": [HI]}).cache == ("a", "s")
    lines = [
        "(APIServer pid=8) DEBUG 09-25 [l.py:52] Request c1 details: prompt: 'x', prompt_token_ids: [1], y",
        "(APIServer pid=8) INFO 09-25 [logger.py:60] Received request c1: params: P(n=1), lora_request: "
        "LoRARequest(lora_name='legal', lora_int_id=1).",
    ]
    assert [one.cache for one in read(*lines)[1]] == [("legal", "")]


def test_halves_of_surrogate_pairs_are_replaced():
    log, found = read('{"messages": [{"role": "user", "content": "cut \\ud83d"}]}')
    assert found[0].messages[0]["content"] == "cut \ufffd"
    assert log.broken == []


PROMPT = r"'It\'s \\'"
DETAILS = f"Request c details: prompt: {PROMPT}, prompt_token_ids: [1], prompt_embeds shape: None."
VLLM = {
    "today": f"(APIServer pid=8) DEBUG 09-25 13:40:01 [logger.py:52] {DETAILS}",
    "before 0.11.2": f"INFO 05-11 12:04:17 [logger.py:39] Received request c: prompt: {PROMPT}, "
    "params: SamplingParams(n=1), prompt_token_ids: None, lora_request: None.",
    "docker compose": f"vllm-1  | (APIServer pid=8) DEBUG 09-25 13:40:01 [logger.py:52] {DETAILS}",
    "a collector": f"2026-05-11T12:00:00.1Z stdout F DEBUG 09-25 [logger.py:52] {DETAILS}",
    "in colours": f"\x1b[34mDEBUG\x1b[0m 09-25 [logger.py:52] {DETAILS}",
    "as JSON": json.dumps({"levelname": "DEBUG", "message": DETAILS}),
    "docker's JSON": json.dumps({"stream": "stderr", "log": f"DEBUG 09-25 [l.py:52] {DETAILS}"}),
}


@pytest.mark.parametrize("line", VLLM.values(), ids=VLLM)
def test_a_line_of_a_vllm_log_is_read_whatever_stands_around_it(line):
    log, found = read(line)
    assert [one.prompt for one in found] == ["It's \\"]
    assert (log.broken, log.other) == ([], 0)


def test_lines_of_a_server_that_are_no_requests_are_never_broken():
    lines = [
        '(APIServer pid=8) INFO:     172.19.0.1:43934 - "POST /v1/chat/completions HTTP/1.1" 200 OK',
        'vllm-1  | INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 200 OK',
        '10.0.0.1 - - [11/May/2026:12:00:00 +0000] "POST /v1/chat/completions HTTP/1.1" 200 512',
        "INFO 05-11 12:00:19 [metrics.py:486] Avg prompt throughput: 13.2 tokens/s",
        "Traceback (most recent call last):",
        '  File "x.py", line 1',
    ]
    log, found = read(*lines)
    assert (found, log.broken, log.other) == ([], [], 6)


def test_requests_of_a_server_without_their_prompts_are_counted_and_say_what_to_set():
    came = "INFO 02-13 [logger.py:49] Received request c{}: params: SamplingParams(n=1), lora_request: None."
    log, found = read(*(came.format(n) for n in range(3)))
    assert found == []
    assert log.broken == [1, 2, 3]
    assert "DEBUG" in next(iter(log.reasons))
    asked = "DEBUG 02-13 [l.py:1] Request c1 details: prompt: 'x', prompt_token_ids: [1], y"
    log, found = read(asked, came.format(1))
    assert (len(found), log.broken) == (1, [])


def test_token_ids_stand_for_a_prompt_that_the_log_does_not_have():
    line = "DEBUG 05-08 [r.py:57] Request c details: prompt: None, prompt_token_ids: [5, 6, 7], x"
    assert read(line)[1][0].ids == (5, 6, 7)
    assert only({"prompt": [5, 6, 7]}).ids == (5, 6, 7)


def test_a_body_that_was_cut_says_so():
    log, found = read('DEBUG 05-08 [r.py:57] Request c JSON body: {"messages": [{"role": "us')
    assert found == []
    assert "--max-log-len" in next(iter(log.reasons))


OBSERVATIONS = [
    {"type": "GENERATION", "startTime": f"2026-09-01T10:0{n}:00.000Z", "input": [{**HI, "content": str(n)}]}
    for n in range(3)
]
WHOLE = {
    "a page of an API": json.dumps({"data": OBSERVATIONS, "meta": {}}),
    "an array over many lines": json.dumps(OBSERVATIONS, indent=1),
    "an object over many lines": json.dumps({"data": OBSERVATIONS}, indent=1),
    "objects over many lines": "\n".join(json.dumps(one, indent=1) for one in OBSERVATIONS),
    "a table": "\n".join(
        [
            "id,type,startTime,input",
            *(
                'o,GENERATION,{},"{}"'.format(o["startTime"], json.dumps(o["input"]).replace('"', '""'))
                for o in OBSERVATIONS
            ),
        ]
    ),
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
def test_a_file_that_is_one_document_or_a_table_is_read(text):
    log = Log(text.splitlines(keepends=True))
    assert [one.messages[0]["content"] for one in log] == ["0", "1", "2"]
    assert log.reasons == {}


def test_requests_are_taken_in_the_order_of_their_times():
    log, found = read(*reversed(OBSERVATIONS))
    assert [one.messages[0]["content"] for one in found] == ["0", "1", "2"]
    assert [one.line for one in found] == [3, 2, 1]
    assert log.reordered
    log, _ = read(*OBSERVATIONS)
    assert not log.reordered


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "gzip"])
def test_a_file_is_read_in_the_coding_that_it_has(tmp_path, coding):
    file, text = tmp_path / "log", json.dumps({"messages": [{"role": "user", "content": "ä"}]}) + "\n"
    file.write_bytes(gzip.compress(text.encode()) if coding == "gzip" else text.encode(coding))
    with open_log(file) as lines:
        assert [one.messages[0]["content"] for one in Log(lines)] == ["ä"]


PROMPTS = {
    "llama": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "<bos><start_of_turn>system\nS<end_of_turn>\n<start_of_turn>user\nU<end_of_turn>\n",
    "gpt-oss": "<|start|>system<|message|>S<|end|><|start|>user<|message|>U<|end|><|start|>assistant",
    "phi": "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n",
    "granite": "<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|>U<|end_of_text|>\n",
    "mistral": "[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]",
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_rendered_prompt_is_taken_apart(prompt):
    assert taken_apart(prompt) == (("system", "S"), ("user", "U"))


KEYS = [
    "messages",
    "role",
    "content",
    "tools",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "args",
    "type",
    "text",
    "input",
    "body",
    "prompt",
    "data",
    "resourceSpans",
    "scopeSpans",
    "spans",
    "attributes",
    "key",
    "value",
    "stringValue",
    "instructions",
    "id",
    "lc",
    "kwargs",
    "model",
    "startTime",
    "system",
    "parts",
    "log",
    "message",
    "level",
    "image_url",
    "output",
]
VALUES = ["user", "assistant", "tool", "tool_use", "tool_result", "GENERATION", "{", "[1]"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system"])},
    optional={"content": ANYTHING, "tool_calls": ANYTHING, "name": ANYTHING, "reasoning": ANYTHING},
)


REQUEST = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, min_size=1, max_size=3)}, optional={"tools": ANYTHING, "model": ANYTHING}
)
FRONTS = ["", "INFO 1 ", "a,input\n", "Request c details: prompt: ", "INFO Received request c: prompt: '"]


@settings(deadline=None, max_examples=300)
@given(
    ANYTHING
    | st.fixed_dictionaries({"messages": st.lists(MESSAGE, min_size=1, max_size=3), "tools": ANYTHING})
)
def test_no_document_raises_anything_but_the_documented_error(document):
    line = json.dumps(document)
    for text in (line, line[:-1], f"INFO 1 Request c JSON body: {line}", f"vllm-1  | {line}"):
        log = Log([text])
        for request in log:
            assert request.messages or request.prompt is not None or request.ids
        assert refusal(text) != ""


@settings(deadline=None, max_examples=200)
@given(
    st.text(max_size=80),
    st.sampled_from(
        ["", "INFO 1 ", "a,input\n", "Request c details: prompt: ", "INFO Received request c: prompt: '"]
    ),
)
def test_no_text_raises_anything(text, front):
    list(Log((front + text).splitlines(keepends=True)))


def test_a_pipe_is_read(tmp_path):
    pipe, text = tmp_path / "pipe", json.dumps({"messages": [HI]}) + "\n"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(text))
    writer.start()
    with open_log(pipe) as lines:
        assert len(list(Log(lines))) == 1
    writer.join()
