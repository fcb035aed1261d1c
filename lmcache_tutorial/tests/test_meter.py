"""The meter: what it times and whose calls it counts, with a stand-in for the engine's HTTP side."""

import json
import os
import threading
import time
from types import SimpleNamespace

import httpx
import pytest

from lmcache_tutorial.asking.first_token import NoTokenError, read_to_first_token, token_text
from lmcache_tutorial.asking.meter import Meter
from lmcache_tutorial.machine.waiting import Waiting
from lmcache_tutorial.tests.snapshots import snapshot

USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}
URL = "http://engine/v1/chat/completions"


def line(**fields) -> bytes:
    return b"data: " + json.dumps({"id": "x", "choices": [], **fields}).encode() + b"\n\n"


ANSWER = [
    line(choices=[{"delta": {"role": "assistant", "content": ""}}]),
    line(choices=[{"delta": {"content": "Pa"}}]),
    line(choices=[{"delta": {"content": "ris"}}]),
    line(usage=USAGE),
    b"data: [DONE]\n\n",
]


class Pieces(httpx.SyncByteStream):
    """An answer whose pieces come after pauses [s]."""

    def __init__(self, pauses=(0, 0, 0, 0, 0), fails=False):
        self.pauses, self.fails, self.given = pauses, fails, []
        self.begun, self.ended = threading.Event(), threading.Event()

    def __iter__(self):
        self.begun.set()
        for pause, piece in zip(self.pauses, ANSWER, strict=True):
            time.sleep(pause)
            self.given.append(time.perf_counter())
            yield piece
            if self.fails:
                raise httpx.ReadError("the engine is gone")
        self.ended.set()


class Engine(httpx.BaseTransport):
    """Answers each request with the next of some streams."""

    def __init__(self, *streams):
        self.streams = list(streams)

    def handle_request(self, request):
        return httpx.Response(200, stream=self.streams.pop(0))


class Counting:
    """A stack whose counters say what was asked of them."""

    engines = (SimpleNamespace(name="vllm"),)
    front_pids = ()

    def __init__(self):
        self.prompt = 0

    def snapshot(self):
        return snapshot(computed=self.prompt)

    def wait_counted(self, since, prompts):
        self.prompt = since.prompt + sum(prompts)
        return self.snapshot()


@pytest.fixture
def meter():
    def make(*streams):
        made = Meter(Counting())
        made._inner.close()
        made._inner = Engine(*streams)
        made.begin()
        return made, httpx.Client(transport=made)

    return make


def test_a_busy_consumer_does_not_make_the_first_token_later(meter):
    pieces = Pieces()
    measured, client = meter(pieces)
    began = time.perf_counter()
    with client.stream("POST", URL, json={}) as answer:
        taken = answer.iter_raw()
        next(taken)  # the piece before the first token
        assert pieces.ended.wait(30)  # all others come while the consumer takes nothing
        all_came_s = time.perf_counter() - began
        time.sleep(2 * all_came_s)  # were they stamped when they are taken, it would take longer than that
        list(taken)
    (call,) = measured.finish()
    assert call.ttft_s <= all_came_s
    assert call.text == "Paris"


def test_the_first_token_is_timed_when_it_comes(meter):
    pieces = Pieces((0, 0.1, 0, 0.1, 0.1))
    measured, client = meter(pieces)
    began = time.perf_counter()
    client.post(URL, json={})
    (call,) = measured.finish()
    assert pieces.given[1] - pieces.given[0] <= call.ttft_s  # the piece that holds it was there
    assert call.ttft_s <= pieces.given[2] - began  # and the one behind it was not


def test_an_answer_that_breaks_off_breaks_off_for_its_reader(meter):
    _, client = meter(Pieces(fails=True))
    with pytest.raises(httpx.ReadError, match="the engine is gone"):
        client.post(URL, json={})


def test_a_body_that_is_no_json_does_not_make_later_calls_parallel(meter):
    measured, client = meter(Pieces(), Pieces(), Pieces())
    client.post(URL, content=b"\xff no json")
    client.post(URL, content=b"[1]")
    client.post(URL, json={"model": "m"})
    calls = measured.finish()
    assert [call.tokens is not None for call in calls] == [True] * 3
    assert [call.request for call in calls] == [{}, {}, {"model": "m"}]


def test_a_call_that_outlives_its_window_belongs_to_none(meter):
    slow = Pieces((0, 0.5, 0, 0, 0))
    measured, client = meter(slow, Pieces())
    late = threading.Thread(target=client.post, args=[URL], kwargs={"json": {"late": 1}})
    late.start()
    assert slow.begun.wait(5)
    measured.begin()
    client.post(URL, json={"late": 0})
    late.join()
    (call,) = measured.finish()
    assert call.request == {"late": 0}
    assert call.tokens is not None


def test_calls_side_by_side_have_no_split_of_their_own(meter):
    measured, client = meter(Pieces((0, 0.5, 0, 0, 0)), Pieces((0, 0.5, 0, 0, 0)))
    both = [threading.Thread(target=client.post, args=[URL], kwargs={"json": {}}) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [(call.tokens, call.waited_s) for call in measured.finish()] == [(None, None)] * 2


def test_a_call_has_waited_from_the_call_before_to_the_end_of_its_answer(meter, monkeypatch):
    counted = iter([1.0, 1.5, 7.0, 7.25, 9.0])  # the window, a call, what is counted, a call, what is counted
    monkeypatch.setattr(Meter, "waiting", lambda self: Waiting({"thread": int(next(counted) * 1e9)}, 0.0))
    measured, client = meter(Pieces(), Pieces())
    client.post(URL, json={})
    client.post(URL, json={})
    assert [call.waited_s for call in measured.finish()] == [0.5, 0.25]


def test_a_call_has_waited_in_this_process_where_no_server_is_ours(meter):
    measured, client = meter(Pieces())
    client.post(URL, json={})
    (call,) = measured.finish()
    assert call.waited_s is not None
    assert {file.split("/")[2] for file in measured.waiting().threads} == {str(os.getpid())}


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"delta": {"role": "assistant", "content": ""}}, None),
        ({"delta": {}}, None),
        ({"delta": {"content": None}}, None),
        ({"delta": {"content": " "}}, " "),
        ({"delta": {"reasoning": "Hm"}}, "Hm"),
        ({"delta": {"tool_calls": [{"function": {"name": "look_up", "arguments": ""}}]}}, "look_up"),
        ({"text": ""}, ""),
        ({"text": "a"}, "a"),
        ({}, None),
    ],
)
def test_what_tells_of_a_token(choice, text):
    assert token_text(choice) == text


def test_every_clock_stops_at_the_same_event():
    lines = iter(b"".join(ANSWER).decode().splitlines())
    read_to_first_token(lines)
    assert '"ris"' in "".join(lines)  # the event with "Pa" was the last that was read


def test_an_answer_without_a_token_has_no_time_to_it():
    lines = b"".join([ANSWER[0], *ANSWER[3:]]).decode().splitlines()
    with pytest.raises(NoTokenError, match="without a token"):
        read_to_first_token(iter(lines))
