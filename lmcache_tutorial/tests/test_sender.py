"""Traces are sent at least once, and none is lost: a stand-in that misbehaves, and a real receiver."""

import asyncio
import gzip
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import oteltap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lmcache_tutorial.servers.ports import free_port
from lmcache_tutorial.traces import sender
from lmcache_tutorial.traces.ledger import Ledger
from lmcache_tutorial.traces.sender import Receiver, send


def document(number, text="Hi"):
    span = {
        "traceId": f"{number:032x}",
        "spanId": f"{number + 1:016x}",
        "name": "turn",
        "kind": 1,
        "startTimeUnixNano": "1795733495288481994",
        "endTimeUnixNano": "1795733495289380621",
        "attributes": [{"key": "langfuse.observation.input", "value": {"stringValue": text}}],
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def spool(folder, count, text="Hi"):
    path = folder / "run.jsonl"
    path.write_text("".join(json.dumps(document(number, text)) + "\n" for number in range(1, count + 1)))
    return path


class Standing(BaseHTTPRequestHandler):
    """A receiver that answers as its server's script says, and then well; it keeps the ids that it took."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.headers.append(self.headers)
        script = self.server.script
        status, how = script.pop(0) if script else (200, "")
        if how == "slow":
            time.sleep(3)
        if self.path.endswith("/ingestion"):
            self.take_scores(json.loads(body), status)
            return
        packed = self.headers.get("content-encoding") == "gzip"
        request = ExportTraceServiceRequest.FromString(gzip.decompress(body) if packed else body)
        ids = [s.trace_id.hex() for r in request.resource_spans for c in r.scope_spans for s in c.spans]
        if f"{13:032x}" in ids and self.server.hates_13:
            status = 400
        if status == 200:
            self.server.taken += ids
        if how == "gone":
            self.connection.close()
            return
        self.send_response(status)
        if how.isdigit():
            self.send_header("retry-after", how)
        self.send_header("content-length", "10" if how == "half" else "0")
        self.end_headers()
        if how == "half":
            self.wfile.write(b"{")
            self.close_connection = True

    def take_scores(self, body, status):
        """Take scores as Langfuse's ingestion does: 207, with what it did not take."""
        ids = [event["body"]["id"] for event in body["batch"]]
        self.server.scores += ids if status == 200 else []
        errors = [{"id": one, "status": 400} for one in ids if one == "bad"]
        told = json.dumps({"successes": [], "errors": errors}).encode()
        self.send_response(207 if status == 200 else status)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_):
        pass


@pytest.fixture
def standing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Standing)
    server.script, server.taken, server.headers, server.hates_13 = [], [], [], False
    server.scores = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def receiver(server):
    return Receiver(httpx.Client(), f"http://127.0.0.1:{server.server_port}/v1/traces")


def test_what_was_sent_is_not_sent_again(standing, tmp_path):
    path = spool(tmp_path, 5)
    done = send([path], receiver(standing), 5)
    assert len(done.traces) == 5
    assert (done.left, done.trouble, done.resent, done.refused) == (0, "", 0, ())
    assert send([path], receiver(standing), 5).traces == set()
    assert Counter(standing.taken) == Counter(f"{n:032x}" for n in range(1, 6))
    with path.open("a") as file:
        file.write(json.dumps(document(6)) + "\n" + '{"resourceSpans": [')
    assert send([path], receiver(standing), 5).traces == {f"{6:032x}"}  # the last line is being written


def test_a_large_spool_goes_in_several_requests(standing, tmp_path, monkeypatch):
    monkeypatch.setattr(sender, "BATCH_BYTES", 2_000)
    done = send([spool(tmp_path, 20)], receiver(standing), 10)
    assert len(done.traces) == 20
    assert 3 < len(standing.headers) < 20
    assert standing.headers[0]["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("script", "resent"),
    [
        ([(429, "1")], 0),
        ([(500, ""), (503, "")], 0),
        ([(200, "half")], 1),
        ([(200, "gone")], 1),
    ],
    ids=["asked too often", "broken", "half an answer", "gone"],
)
def test_a_receiver_that_stumbles_gets_it_again(standing, tmp_path, script, resent):
    standing.script += script
    done = send([spool(tmp_path, 3)], receiver(standing), 10)
    assert len(done.traces) == 3
    assert done.left == 0
    assert done.resent == resent
    assert set(Counter(standing.taken).values()) == {1 + resent}


@pytest.mark.parametrize("script", [[(200, "slow")] * 9, [(500, "")] * 99, [(429, "60")]])
def test_sending_ends_with_its_time_and_nothing_is_lost(standing, tmp_path, script):
    standing.script += script
    path, began = spool(tmp_path, 3), time.monotonic()
    done = send([path], receiver(standing), 1.0)
    assert time.monotonic() - began < 2.0
    assert done.left == path.stat().st_size
    assert done.trouble
    standing.script.clear()
    assert len(send([path], receiver(standing), 10).traces) == 3


def test_one_malformed_span_does_not_take_the_others_along(standing, tmp_path):
    standing.hates_13 = True
    path = spool(tmp_path, 20)
    done = send([path], receiver(standing), 10)
    assert len(done.refused) == 1
    assert done.left == 0
    assert len(set(standing.taken)) == 19
    broken = tmp_path / "broken.jsonl"
    bad = document(1)
    bad["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["spanId"] = "not hex"
    broken.write_text(json.dumps(bad) + "\n" + json.dumps(document(77)) + "\n")
    done = send([broken], receiver(standing), 10)
    assert len(done.refused) == 1
    assert f"{77:032x}" in standing.taken


@pytest.mark.parametrize("status", [301, 401, 404, 405])
def test_what_says_nothing_of_the_spans_leaves_everything(standing, tmp_path, status):
    standing.script += [(status, "")] * 99
    path = spool(tmp_path, 3)
    limit_s = 4  # beside other tests a second may pass before the first answer
    done = send([path], receiver(standing), limit_s)
    assert done.trouble.startswith(f"HTTP {status}")
    assert done.left == path.stat().st_size
    assert done.refused == ()


@settings(deadline=None, max_examples=50)
@given(cut=st.integers(0, 200))
def test_a_ledger_that_was_cut_off_loses_nothing(tmp_path_factory, cut):
    path = spool(tmp_path_factory.mktemp("spool"), 3)
    ledger = Ledger(path)
    ends = [line.end for line in ledger.unsent()]
    ledger.note("sending", 0, ends[0])
    ledger.note("taken", 0, ends[0])
    ledger.note("sending", ends[0], ends[1])
    raw = ledger.path.read_bytes()
    ledger.path.write_bytes(raw[: max(0, len(raw) - cut)])
    again = Ledger(path)
    assert again.sent_to in (0, ends[0])
    again.note("sending", again.sent_to, ends[2])
    again.note("taken", again.sent_to, ends[2])
    assert Ledger(path).sent_to == ends[2]
    assert list(Ledger(path).unsent()) == []


SEND = """
import sys
from pathlib import Path
from lmcache_tutorial.traces import sender
sender.BATCH_BYTES = 20_000
print(len(sender.send([Path(sys.argv[1])], sender.Receiver.at(sys.argv[2]), 60).traces), flush=True)
"""


def test_a_thousand_traces_survive_ten_deaths_of_their_sender(standing, tmp_path):
    path, url = spool(tmp_path, 1_000), f"http://127.0.0.1:{standing.server_port}/v1/traces"
    for number in range(10):
        child = subprocess.Popen([sys.executable, "-c", SEND, str(path), url], stdout=subprocess.PIPE)
        wanted = len(standing.headers) + 1 + number % 2
        deadline = time.monotonic() + 30
        while len(standing.headers) < wanted and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    done = send([path], receiver(standing), 30)
    counted = Counter(standing.taken)
    assert len(counted) == 1_000
    assert done.left == 0
    batch = len(path.read_bytes()) // 20_000
    assert sum(counted.values()) - 1_000 <= 10 * (1_000 // batch + 1)  # one batch a death at most


def test_a_receiver_that_others_wrote_takes_it(tmp_path):
    path, names = spool(tmp_path, 3, secrets.token_hex(4)), []

    async def receive():
        port = free_port()
        settings = oteltap.OtelTapHttpProtobufReceiverSettings(http_port=port)
        async with oteltap.OtelTapHttpProtobufReceiver(settings) as tap:
            url = f"http://127.0.0.1:{port}/v1/traces"
            first = asyncio.ensure_future(tap.await_trace(lambda span: names.append(span.trace_id.hex()), 30))
            await asyncio.sleep(0.2)  # until it listens
            done = await asyncio.to_thread(send, [path], Receiver.at(url), 10)
            while len(names) < 3:
                await asyncio.sleep(0.05)
            first.cancel()
            return done

    done = asyncio.run(asyncio.wait_for(receive(), 30))
    assert len(done.traces) == 3
    assert set(names) == done.traces


def scored(folder, *ids):
    path = spool(folder, 1)
    events = [{"id": one, "type": "score-create", "body": {"id": one}} for one in ids]
    path.with_name("run-scores.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    return path


def for_scores(server):
    return Receiver(httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}"), "/v1/traces")


def test_scores_follow_their_traces_once(standing, tmp_path):
    path = scored(tmp_path, "one", "two")
    assert sender.spools(tmp_path) == [path]
    assert sender.send_scores([path], for_scores(standing), 5) == []
    assert sender.send_scores([path], for_scores(standing), 5) == []
    assert standing.scores == ["one", "two"]


def test_a_score_that_is_refused_is_said_and_takes_no_other_along(standing, tmp_path):
    (told,) = sender.send_scores([scored(tmp_path, "one", "bad")], for_scores(standing), 5)
    assert told.startswith("scores: refused, and still in the file: 1 scores refused")
    assert set(standing.scores) == {"one", "bad"}


def test_scores_that_nobody_takes_in_time_are_left_for_later(standing, tmp_path):
    standing.script += [(500, "")] * 99
    path = scored(tmp_path, "one")
    (told,) = sender.send_scores([path], for_scores(standing), 0.5)
    assert "later: lmcache-tutorial traces send" in told
    standing.script.clear()
    assert sender.send_scores([path], for_scores(standing), 5) == []
    assert standing.scores == ["one"]
