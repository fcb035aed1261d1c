"""A tiny server that speaks the API and keeps prefixes as an engine would; no figure comes from it."""

import json
import re
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 4
TOGETHER_LIMIT_S = 20.0
LOCK = threading.Lock()


@dataclass
class StandIn:
    """How the server behaves, and what it was asked.

    ``reuses`` nothing of a prompt, or whole blocks; ``token_s`` is what computing one takes, and ``delay_s``
    what every answer takes besides [s]. No request is answered before ``together`` of them were under way at
    the same time, or ``TOGETHER_LIMIT_S`` have passed. ``wrong`` gives another answer where something was
    reused, as another model's KV would. ``word`` is what it takes for a token, ``context`` the longest prompt
    that it says that it takes; ``looks_up`` makes it an LMCache too, which counts what is looked up, prompts
    of a ``chunk`` and more, on its page unless it ``counts_elsewhere``.
    ``tells_own`` adds what vLLM tells of a request: its own times, and the ids of its answer. ``answer`` is
    what it says; its KV is kept too, but for the last token's. ``tells_usage`` and ``ends`` tell how the
    answers to requests end, by their number from 0: with a count of tokens, and with an end at all. Comments
    are sent for ``comments_s``, and then no answer [s].
    """

    honours_salts: bool = True
    tells_cached: bool = True
    tells_ids: bool = True
    reuses: bool = True
    wrong: bool = False
    word: str = r"\S+"
    context: int | None = None
    looks_up: bool = False
    chunk: int = 2 * BLOCK
    counts_elsewhere: bool = False
    tells_own: bool = False
    answer: tuple[str, ...] = ("Paris",)
    tells_usage: Callable[[int], bool] = lambda _: True
    ends: Callable[[int], bool] = lambda _: True
    comments_s: float = 0.0
    may_reset: bool = False
    resets: int = 0
    key: str = ""
    token_s: float = 0.0004
    delay_s: float = 0.0
    together: int = 1
    asked: list = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    keys: list = field(default_factory=list)
    kept: set = field(default_factory=set)
    url: str = ""

    def ids(self, body):
        if "messages" not in body:
            return self.split(body["prompt"])
        texts = [f"<{message['role']}> {_text(message['content'])}" for message in body["messages"]]
        texts.append("<assistant>")
        tools = json.dumps(body["tools"]) if body.get("tools") else ""
        return self.split(f"{tools} {' '.join(texts)}")

    def split(self, text):
        return [zlib.crc32(word.encode()) for word in re.findall(self.word, text)]

    def reuse(self, body):
        """Return how many tokens of a prompt are known, and keep it."""
        ids, salt = self.ids(body), body.get("cache_salt", "") if self.honours_salts else ""
        known = 0
        for end in range(BLOCK, len(ids) + 1, BLOCK):
            block = (salt, tuple(ids[:end]))
            if block in self.kept and end < len(ids) and known == end - BLOCK:
                known = end
            self.kept.add(block)
        answered = [*ids, *self.split(" ".join(self.answer))[:-1]]
        self.kept |= {(salt, tuple(answered[:end])) for end in range(BLOCK, len(answered) + 1, BLOCK)}
        return len(ids), known if self.reuses else 0

    @contextmanager
    def counting(self):
        """Count a request as one that is under way."""
        with LOCK:
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
        deadline = time.monotonic() + TOGETHER_LIMIT_S
        while self.most_at_once < self.together and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield
        finally:
            with LOCK:
                self.under_way -= 1

    def events(self, body):
        prompt, known = self.reuse(body)
        time.sleep((prompt - known) * self.token_s + self.delay_s)
        word, *others = self.answer
        likely = [(word, -0.1), ("Rome", -2.5)]
        if self.wrong and known:
            likely = [("Rome", -0.1), (word, -4.5)]
        text = " ".join([likely[0][0], *others])
        said = [likely, *([(one, -0.1)] for one in others)]
        if body.get("return_tokens_as_token_ids"):
            said = [[(f"token_id:{self.split(token)[0]}", value) for token, value in one] for one in said]
        if "messages" in body:
            tops = [[{"token": token, "logprob": value} for token, value in one] for one in said]
            choice = {
                "delta": {"content": text},
                "logprobs": {"content": [{**top[0], "top_logprobs": top} for top in tops]},
            }
        else:
            told = {
                "tokens": [one[0][0] for one in said],
                "token_logprobs": [one[0][1] for one in said],
                "top_logprobs": [dict(one) for one in said],
            }
            choice = {"text": text, "logprobs": told}
        if body.get("tools") and body.get("tool_choice", "auto") == "auto":
            choice["delta"] = {}  # it may become a tool call, and is held back until that is known
        usage = {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1}
        if self.tells_cached:
            usage["prompt_tokens_details"] = {"cached_tokens": known}
        last = {"choices": [], "usage": usage}
        if self.tells_own:
            choice["token_ids"] = self.split(text)
            last["id"] = f"chatcmpl-{len(self.asked)}"
            last["metrics"] = {"queue_time_ms": 0.1, "time_to_first_token_ms": 1.0}
        return [{"choices": [choice]}, last]


def _text(content):
    return content if isinstance(content, str) else " ".join(part["text"] for part in content)


class Handler(BaseHTTPRequestHandler):
    """Answers for the stand-in that its server carries."""

    @property
    def stand_in(self):
        return self.server.stand_in

    def do_GET(self):
        told = {"max_model_len": self.stand_in.context} if self.stand_in.context else {}
        prompts = [len(self.stand_in.ids(one)) for one in self.stand_in.asked]
        looked_up = sum(prompt for prompt in prompts if prompt >= self.stand_in.chunk)
        counted = "" if self.stand_in.counts_elsewhere else "lmcache_mp_active_prefetch_jobs 0.0\n"
        if counted and self.stand_in.looks_up:
            counted += f"lmcache_mp_lookup_requested_tokens_total {looked_up}\n"
        held = len(self.stand_in.kept) if self.stand_in.looks_up else 0
        pages = {
            "/v1/models": json.dumps({"data": [{"id": "small", **told}, {"id": "large", **told}]}),
            "/status": json.dumps(  # as LMCache's HTTP side
                {
                    "chunk_size": self.stand_in.chunk,
                    "storage_manager": {"l1_manager": {"total_object_count": held}},
                }
            ),
            "/version": json.dumps({"version": "0.32.0"}),
            "/metrics": f'vllm:cache_config_info{{block_size="{BLOCK}",engine="0"}} 1.0\n{counted}',
        }
        if self._allowed():
            self._answer(pages.get(self.path, "no such page"), 200 if self.path in pages else 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
        if not self._allowed():
            return
        if self.path == "/reset_prefix_cache":  # what it keeps is LMCache's then
            self.stand_in.resets += 1
            self._answer('{"success": true}', 200 if self.stand_in.may_reset else 404)
            return
        if self.path == "/tokenize":
            status = 200 if self.stand_in.tells_ids else 404
            self._answer(json.dumps({"tokens": self.stand_in.ids(body)}), status)
            return
        number = len(self.stand_in.asked)
        self.stand_in.asked.append(body)
        with self.stand_in.counting():
            first, last = self.stand_in.events(body)
        if not self.stand_in.tells_usage(number):
            last.pop("usage")
        if body.get("stream") and self.stand_in.comments_s:
            self._comment(time.monotonic() + self.stand_in.comments_s)
        elif body.get("stream") and not self.stand_in.ends(number):
            self._answer(f"data: {json.dumps(first)}\n\n")
        elif body.get("stream"):
            events = [f"data: {json.dumps(event)}\n\n" for event in (first, last)]
            self._answer("".join(events) + "data: [DONE]\n\n")
        else:
            told = first["choices"][0]
            message = {"role": "assistant", **told["delta"]}
            choice = {"index": 0, "message": message, "token_ids": told.get("token_ids")}
            self._answer(json.dumps({"choices": [choice], "usage": last["usage"]}))

    def _comment(self, until):
        """Keep a connection open by comments, and say nothing."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        with suppress(OSError):
            while time.monotonic() < until:
                self.wfile.write(b": ping\n\n")
                time.sleep(0.02)

    def _allowed(self):
        given, key = self.headers.get("authorization", ""), self.stand_in.key
        self.stand_in.keys.append(given)
        if key and given != f"Bearer {key}":
            self._answer("no key", 401)
            return False
        return True

    def _answer(self, text, status=200):
        self.send_response(status)
        self.send_header(
            "content-type", "text/event-stream" if text.startswith("data:") else "application/json"
        )
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@contextmanager
def serving(**behaviour):
    """Run a server for a ``with`` block."""
    server = StandIn(**behaviour)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.stand_in = server
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
