"""An idle connection is given up before a server closes it: a request in between would have no answer."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from lmcache_tutorial.asking.timed import TimedTransport
from lmcache_tutorial.gate.deployment import client_for
from lmcache_tutorial.models.model import Model
from lmcache_tutorial.settings.connections import IDLE_S
from lmcache_tutorial.stack import start
from lmcache_tutorial.traces.langfuse_api import project_client
from lmcache_tutorial.traces.sender import Receiver

UVICORN_S = 5.0


class Page(BaseHTTPRequestHandler):
    """Answers, keeps the connection, and notes whose it was."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append(self.client_address)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    found.seen, found.daemon_threads = [], True
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def test_no_client_uses_a_connection_that_a_server_may_be_closing(server, monkeypatch, cpu_run, tmp_path):
    url = f"http://127.0.0.1:{server.server_port}"
    for name, value in {"BASE_URL": url, "PUBLIC_KEY": "pk", "SECRET_KEY": "sk"}.items():
        monkeypatch.setenv(f"LANGFUSE_{name}", value)
    clients = [
        client_for(url),
        project_client(),
        Receiver.at(url).client,
        httpx.Client(transport=TimedTransport()),
        start._site(cpu_run.stack, Model(tmp_path, "m", "", None), tmp_path).client,  # asks our own servers
    ]
    for pause_s in (0.1, IDLE_S + 0.3):
        for client in clients:
            client.get(f"{url}/")
        time.sleep(pause_s)
    for client in clients:
        client.get(f"{url}/")
        client.close()
    count = len(clients)
    first, second, third = (server.seen[turn * count :][:count] for turn in range(3))
    assert first == second  # used again at once
    assert not set(second) & set(third)
    assert IDLE_S < UVICORN_S / 2
