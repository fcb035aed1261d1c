"""What a change is called: times and ids of many forms, what only looks like them, and orders."""

import json
import time

import pytest

from lmcache_tutorial.diagnosis.culprits import kind_of, place
from lmcache_tutorial.diagnosis.same_json import json_kind
from lmcache_tutorial.diagnosis.turns import Talk

MANUAL = (
    "The early ledger approves the small notebook on request, and the kettle counts an empty cabinet.\n" * 9
)


def kind(first: str, second: str) -> str:
    """Name the change between two system prompts with the same manual below."""
    one, other = (Talk((("system", f"{line}\n{MANUAL}"), ("user", "q"))) for line in (first, second))
    return kind_of(one, other, place(one, other))


TIMES = [
    ("Now: 2026-11-24T10:01:11Z", "Now: 2026-11-24T10:02:11Z"),
    ("It is 10:01.", "It is 10:02."),
    ("Today is 1 November 2026.", "Today is 2 November 2026."),
    ("2026年9月17日", "2026年9月18日"),
    ("17 septembre 2026", "18 septembre 2026"),
    ("17. Oktober 2026", "18. Oktober 2026"),
    ("17 de septiembre de 2026", "18 de septiembre de 2026"),
    ("Thu Sep 17 2026", "Fri Sep 18 2026"),
    ("Today: Tuesday", "Today: Thursday"),
    ("November 3rd", "November 4th"),
    ("09/17/2026", "09/18/2026"),
    ("17.09.2026", "18.09.2026"),
    ("20260917T1012", "20260918T1012"),
    ("t=1795500000", "t=1795500061"),
    ("at 9:05 pm", "at 9:06 pm"),
    ("time 1795500000123", "time 1795500061123"),
]
IDENTIFIERS = [
    ("Request 01927f4e-8c1a-7d3b-9e2f-1a2b3c4d5e6f", "Request 01927f4f-0a11-7b22-9d33-0f0e0d0c0b0a"),
    ("session_id=sess_ab12cd34ef", "session_id=sess_9f8e7d6c5b"),
    ("Ticket #493021", "Ticket #118230"),
    ("User u58234", "User u482"),
    ("id 01J8ZC9YQ4T7K2M5N6P8R9S0TV", "id 01J8ZCA1B2C3D4E5F6G7H8J9KM"),
    ("tz4a98xxat96iws9zmbrgj3a", "pfh0haxfpzowht3oi213cqos"),
    ("V1StGXR8Z5jdHi6BmyTq2", "uakgb1J5m9g0JDMbcJqLJ"),
    ("user: 66f1a2b3c4d5e6f708192a3b", "user: 66f1a2b3c4d5e6f708193a9f"),
    ("36ee5", "0aaa9"),
    ("billing: v=3.4; chk=3b7e1;", "billing: v=3.4; chk=c04d9;"),
    ("req-8f3a", "req-77b0"),
]
NEITHER = [
    ("Server 10.0.0.12", "Server 10.0.0.13"),
    ("10.0.12.31", "10.0.14.7"),
    ("Version 0.5.31", "Version 0.5.32"),
    ("v2.1.177", "v2.1.178"),
    ("version 2024.10.1", "version 2024.10.2"),
    ("Market 10", "Market 11"),
    ("Decoder 12", "Decoder 13"),
    ("Ratio 3:14", "Ratio 3:15"),
    ("Aspect ratio 16:10", "Aspect ratio 16:12"),
    ("Model: gpt-4", "Model: gpt-5"),
    ("qwen3-32b", "llama3-70b"),
    ("H100", "H200"),
    ("sha256", "sha512"),
    ("page-2", "page-3"),
    ("claude-sonnet-4-5", "claude-opus-4-6"),
    ("Qwen2.5-72B-Instruct", "Llama-3.1-70B-Instruct"),
    ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20"),
    ("claude-3-5-sonnet-20240620", "claude-3-5-sonnet-20241022"),
    ("The sun, late", "The sun! late"),
    ("for req-8f3a.", "for req-8f3a!"),
]


@pytest.mark.parametrize(("first", "second"), TIMES)
def test_a_time_is_named_in_any_form(first, second):
    assert kind(first, second) == "timestamp"
    assert kind(second, first) == "timestamp"


@pytest.mark.parametrize(("first", "second"), IDENTIFIERS)
def test_an_identifier_is_named_in_any_form(first, second):
    assert kind(first, second) == "request_id"
    assert kind(second, first) == "request_id"


@pytest.mark.parametrize(("first", "second"), NEITHER)
def test_versions_addresses_and_names_are_neither_times_nor_identifiers(first, second):
    assert kind(first, second) == "user_text_above_static"
    assert kind(second, first) == "user_text_above_static"


ORDERS = {
    "json_key_order": ('{"line_1": "a", "line_2": "b"}', '{"line_2": "b", "line_1": "a"}'),
    "json_escaping": ('{"city": "Z\\u00fcrich"}', '{"city": "Zürich"}'),
    "array_order": ('{"required": ["a", "b"]}', '{"required": ["b", "a"]}'),
    "whitespace": ('{"a":1}', '{"a": 1}'),
    "retrieval_order": (
        '[{"id": 1, "text": "one"}, {"id": 22222, "text": "two"}]',
        '[{"id": 22222, "text": "two"}, {"id": 1, "text": "one"}]',
    ),
}


@pytest.mark.parametrize("expected", ORDERS)
def test_json_of_the_same_content_is_named_by_what_differs(expected):
    assert kind(*(f"Data: {text}" for text in ORDERS[expected])) == expected


def test_json_of_another_content_is_judged_by_its_text():
    assert kind('{"at": "10:01"}', '{"at": "10:02"}') == "timestamp"


def test_passages_with_dates_that_move_are_an_order_but_a_clock_above_them_is_a_clock():
    passages = [f"2026-0{n}-03: the harbour moves the parcel number {n} in the morning." for n in range(1, 7)]
    one, other = "\n\n".join(passages), "\n\n".join(reversed(passages))
    assert kind(one, other) == "retrieval_order"
    assert kind(f"Now 10:01\n\n{one}", f"Now 10:02\n\n{other}") == "timestamp"


def tools_kind(first, second):
    one, other = (Talk((("user", "q"),), tuple(tools)) for tools in (first, second))
    at = place(one, other)
    assert at.segment == "tools"
    return kind_of(one, other, at)


def test_changes_of_tools_are_told_apart():
    def tool(name, **more):
        return {"type": "function", "function": {"name": name, **more}}

    a, b, c = tool("a", x={"p": 1, "q": 2}), tool("b", required=["m", "n"]), tool("c")
    turned = tool("a", x={"q": 2, "p": 1})
    assert tools_kind([a, b], [b, a]) == "tool_order"
    assert tools_kind([a, b], [b, turned]) == "tool_order"
    assert tools_kind([a, b], [turned, b]) == "json_key_order"
    assert tools_kind([a, b], [a, tool("b", required=["n", "m"])]) == "array_order"
    assert tools_kind([a, b], [a, b, c]) == "tools_changed"
    assert tools_kind([a], [tool("a", x="at 10:01")]) == "other"
    assert tools_kind([tool("a", x="at 10:02")], [tool("a", x="at 10:01")]) == "timestamp"


def test_a_message_that_is_put_in_and_taken_out_is_no_trim():
    def turns(*texts):
        return Talk(tuple(({"u": "user", "a": "assistant", "s": "system"}[t[0]], t) for t in texts))

    first, second = (
        turns("s", "u memory one", "u question one"),
        turns("s", "u question one", "a yes", "u memory", "u 2"),
    )
    assert kind_of(first, second, place(first, second)) == "history_rewritten"
    first = turns("s", "u 1", "a 1", "u 2", "a 2", "u 3")
    second = turns("s", "u 2", "a 2", "u 3", "a 3", "u 4")
    assert kind_of(first, second, place(first, second)) == "history_trimmed"


def test_an_earlier_turn_of_an_agent_with_one_question_is_history():
    def loop(*results):
        turns = [("system", "s"), ("user", "Audit.")]
        for result in results:
            turns += [("assistant", "step"), ("tool", result)]
        return Talk(tuple(turns))

    first, second = loop("a long result", "b"), loop("[dropped]", "b", "c")
    at = place(first, second)
    assert (at.segment, kind_of(first, second, at)) == ("history", "history_rewritten")


def seconds(first: str, second: str) -> float:
    at = next(n for n, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1])
    begin = time.thread_time()
    json_kind(first, second, at)
    kind(first, second)
    return time.thread_time() - begin


ENDING = "{} of a server"
NESTED = {
    "open brackets": lambda n: "[1," * (n // 3) + ENDING,
    "closed objects": lambda n: '{"a": [1, 2]} ' * (n // 14) + ENDING,
    "one long object": lambda n: json.dumps({str(k): k for k in range(n // 16)}) + "{}",
    "brackets in prose": lambda n: "see [1] and {x " * (n // 15) + ENDING,
}


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED)
def test_the_time_of_a_comparison_grows_with_the_text_alone(make):
    """400 KB took 2.4 s when each bracket was tried, and ended in a RecursionError for nested ones."""

    def best(size: int) -> float:
        text = make(size).removesuffix(ENDING)
        first, second = (f"{text} {word} {MANUAL}" for word in ("one", "two"))
        return min(seconds(first, second) for _ in range(3))

    assert best(400_000) < 8 * best(100_000)  # four times, if linear; sixteen, if quadratic
