"""Bare requests: whatever goes wrong is in the reply, and a whole answer is a Call."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx
import pytest

from lmcache_tutorial.asking import replies
from lmcache_tutorial.asking.replies import InFlight, Question, ask_bare

USAGE = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
LOGPROBS = {"content": [{"logprob": -0.5, "top_logprobs": [{"logprob": -2.0}, {"logprob": -0.5}]}]}
QUESTION = Question([{"role": "user", "content": "Where?"}], "ours")


def line(**fields) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


TOKEN = line(choices=[{"delta": {"content": "Paris"}, "logprobs": LOGPROBS}])
END = line(choices=[], usage=USAGE) + b"data: [DONE]\n\n"


@pytest.fixture
def serve():
    """``serve(status, body, promised=n)`` gives one answer, perhaps shorter than said."""
    servers = []

    def start(status, body, promised=None):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(status)
                self.send_header("content-length", str(promised or len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        asked = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_whole_answer_is_a_call_with_the_lead_of_its_token(serve):
    url, asked = serve(200, TOKEN + END)
    reply = ask_bare(url, "m", QUESTION)
    assert (reply.answer.text, reply.answer.cached_tokens, reply.answer.lead) == ("Paris", 4, 1.5)
    assert asked[0]["cache_salt"] == "ours"


def test_what_the_client_does_before_it_sends_is_not_the_servers_time(serve, monkeypatch):
    """Certificates are read from the disk in 30 ms, by one thread after the other."""
    client = httpx.Client

    def slow(**options):
        time.sleep(0.3)
        return client(**options)

    monkeypatch.setattr(replies.httpx, "Client", slow)
    reply = ask_bare(serve(200, TOKEN + END)[0], "m", QUESTION)
    assert reply.answer.ttft_s < reply.took_s < 0.3


@pytest.mark.parametrize(
    ("status", "body", "promised", "told"),
    [
        (503, b"nobody is there", None, "HTTP 503: nobody is there"),
        (200, TOKEN + line(error={"message": "the load failed"}), None, "in the stream: the load failed"),
        (200, TOKEN, None, "the answer broke off"),
        (200, TOKEN, 10_000, "RemoteProtocolError"),
    ],
)
def test_what_comes_instead_of_an_answer_is_told(serve, status, body, promised, told):
    reply = ask_bare(serve(status, body, promised)[0], "m", QUESTION)
    assert reply.call is None
    assert told in reply.error
    with pytest.raises(AssertionError, match="a request was lost after"):
        _ = reply.answer


def test_nobody_there_is_an_error_and_not_an_exception(serve):
    reply = ask_bare("http://127.0.0.1:9", "m", QUESTION)
    assert reply.error.startswith("ConnectError")


def test_an_answer_agrees_within_a_tolerance_and_only_with_the_same_token(serve):
    reply = ask_bare(serve(200, TOKEN + END)[0], "m", QUESTION)
    near = ask_bare(
        serve(200, TOKEN.replace(b'"logprob": -0.5', b'"logprob": -0.501') + END)[0], "m", QUESTION
    )
    other = ask_bare(serve(200, TOKEN.replace(b"Paris", b"Rome") + END)[0], "m", QUESTION)
    assert near.agrees(reply.answer, tolerance=0.01)
    assert not near.agrees(reply.answer, tolerance=0.0001)
    assert not other.agrees(reply.answer, tolerance=1.0)


def test_of_a_longer_answer_the_beginning_is_judged(serve):
    right = ask_bare(serve(200, TOKEN + END)[0], "m", QUESTION).answer
    longer = ask_bare(serve(200, TOKEN + TOKEN + END)[0], "m", QUESTION)
    assert longer.agrees(right, tolerance=0.01)
    both = ask_bare(serve(200, TOKEN + TOKEN + END)[0], "m", QUESTION).answer
    assert not ask_bare(serve(200, TOKEN + END)[0], "m", QUESTION).agrees(both, tolerance=0.01)


def test_requests_are_under_way_until_they_have_an_answer(serve):
    url, asked = serve(200, TOKEN + END)
    flight = InFlight(SimpleNamespace(url=url, model=SimpleNamespace(name="m")), [QUESTION, QUESTION])
    assert [reply.answer.text for reply in flight.replies()] == ["Paris", "Paris"]
    assert (flight.under_way, len(asked)) == (0, 2)


def test_a_question_has_a_namespace_of_its_own():
    assert Question([]).salt != Question([]).salt
