"""A gateway in front of engines, as others run them: it passes requests on, and may change or route them."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

Body = dict[str, Any]
Route = Callable[[Body], str]
LIMIT_S = 120.0
PASSED_ON = ("content-type", "authorization")


def salts_dropped(url: str) -> Route:
    """Pass everything to one engine, without a field that the gateway does not know."""

    def route(body: Body) -> str:
        body.pop("cache_salt", None)
        return url

    return route


def by_text(text: str, url: str, other: str) -> Route:
    """Pass requests in which a text stands to one engine, and all others to another."""
    return lambda body: url if text in json.dumps(body) else other


class Gateway(ThreadingHTTPServer):
    """The server of a gateway: it knows where each request goes."""

    def __init__(self, route: Route) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.route = route


class Handler(BaseHTTPRequestHandler):
    """Passes a request on, and its answer back piece by piece."""

    server: Gateway

    def do_GET(self) -> None:
        self._pass_on({}, b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        url = self.server.route(body)
        self._pass_on(body, json.dumps(body).encode(), url)

    def _pass_on(self, body: Body, content: bytes, url: str | None = None) -> None:
        url = url or self.server.route(body)
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        with httpx.stream(
            self.command, url + self.path, content=content, headers=headers, timeout=LIMIT_S
        ) as answer:
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", "text/plain"))
            self.end_headers()
            for piece in answer.iter_raw():
                self.wfile.write(piece)
                self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def gateway(route: Route) -> Iterator[str]:
    """Run a gateway for a ``with`` block; yields its address."""
    http = Gateway(route)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
