"""What the recorder notes of an application's requests, and that it changes nothing but their namespace."""

import json
import time

import httpx
import pytest

from lmcache_tutorial.asking import timed
from lmcache_tutorial.asking.recorder import Recorder

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
USAGE = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
EVENTS = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"delta": {"content": "Pa"}}]},
    {"choices": [{"delta": {"content": "ris"}}]},
    {"choices": [], "usage": USAGE},
]
URL = "http://engine/v1/chat/completions"


class Engine(httpx.BaseTransport):
    """Answers streamed requests with events and others with one document; keeps what it was sent."""

    def __init__(self, status=200, end=b"\n\n"):
        self.status, self.end, self.asked = status, end, []

    def handle_request(self, request):
        self.asked.append(request)
        body = json.loads(request.content) if request.content else {}
        if self.status != 200:
            return httpx.Response(self.status, stream=httpx.ByteStream(b'{"error": "too long"}'))
        if body.get("stream"):
            text = b"".join(b"data: " + json.dumps(event).encode() + self.end for event in EVENTS)
            return httpx.Response(200, stream=httpx.ByteStream(b": ping" + self.end + text))
        whole = {"choices": [{"message": {"content": "Paris"}}], "usage": USAGE}
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(whole).encode()))


@pytest.fixture
def recorded():
    def make(**how):
        recorder = Recorder(lambda body: {**body, "cache_salt": "mine"})
        recorder._inner.close()
        recorder._inner = engine = Engine(**how)
        return recorder, engine, httpx.Client(transport=recorder)

    return make


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_streamed_answer_is_noted_with_its_time(recorded, end):
    recorder, engine, client = recorded(end=end)
    answer = client.post(URL, json={**CHAT, "stream": True}, headers={"authorization": "Bearer theirs"})
    assert b"ris" in answer.content
    (call,) = recorder.calls
    assert (call.prompt_tokens, call.cached_tokens, call.text) == (10, 4, "Paris")
    assert call.ttft_s > 0
    assert call.request == {**CHAT, "stream": True}  # as the application made it
    (sent,) = engine.asked
    assert json.loads(sent.content) == {**CHAT, "stream": True, "cache_salt": "mine"}
    assert sent.headers["content-length"] == str(len(sent.content))
    assert sent.headers["authorization"] == "Bearer theirs"
    assert sent.headers.get_list("accept-encoding") == ["identity"]  # a packed stream comes in other pieces
    assert recorder.errors == []


@pytest.mark.parametrize(
    ("last", "errors"),
    [
        (b"", ["the answer broke off"]),
        (b"data: [DONE]\n\n", []),
        (b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n', []),
        (b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\n', []),
        (b'data: {"choices": [{"delta": {}, "finish_re', ["the answer broke off"]),
    ],
)
def test_an_answer_that_broke_off_is_told_from_one_that_ended(recorded, last, errors):
    recorder, engine, client = recorded()
    begin = b'data: {"choices": [{"delta": {"content": "Pa"}, "finish_reason": null}]}\n\n'
    engine.handle_request = lambda _: httpx.Response(200, stream=httpx.ByteStream(begin + last))
    client.post(URL, json={**CHAT, "stream": True})
    assert recorder.errors == errors
    assert len(recorder.calls) == 1 - len(errors)


def test_comments_do_not_keep_a_request_waiting_for_ever(recorded, monkeypatch):
    monkeypatch.setattr(timed, "LONGEST_ANSWER_S", 0.2)

    class Comments(httpx.SyncByteStream):
        def __iter__(self):
            until = time.monotonic() + 10
            while time.monotonic() < until:
                yield b": ping\n\n"
                time.sleep(0.02)

    _, engine, client = recorded()
    engine.handle_request = lambda _: httpx.Response(200, stream=Comments())
    began = time.monotonic()
    with pytest.raises(httpx.ReadTimeout, match="the answer did not end"):
        client.post(URL, json={**CHAT, "stream": True})
    assert time.monotonic() - began < 8


def test_an_answer_that_was_not_streamed_has_no_time_to_its_first_token(recorded):
    recorder, _, client = recorded()
    assert client.post(URL, json=CHAT).json()["choices"][0]["message"]["content"] == "Paris"
    (call,) = recorder.calls
    assert (call.ttft_s, call.text, call.cached_tokens) == (None, "Paris", 4)


def test_a_refusal_is_kept_for_whoever_asks(recorded):
    recorder, _, client = recorded(status=400)
    assert client.post(URL, json=CHAT).status_code == 400
    assert recorder.calls == []
    assert recorder.errors == ['HTTP 400: {"error": "too long"}']


def test_other_requests_pass_unchanged(recorded):
    recorder, engine, client = recorded()
    client.get("http://engine/v1/models")
    client.post("http://engine/tokenize", json={"prompt": "Hi"})
    assert json.loads(engine.asked[1].content) == {"prompt": "Hi"}
    assert (recorder.calls, recorder.errors) == ([], [])
