"""A running vLLM engine, with an LMCache server beside it or without, and what can be asked of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import IO, Any

import httpx

from ..models.prepare import Model
from ..prompts.documents import Document, fresh, full_text
from ..prompts.rendering import Renderer
from ..quantities.records import Snapshot
from ..servers.counters import parse_snapshot
from ..servers.lmcache import lmcache_answers
from ..servers.process import Server, ServerError, shown, wait_until_ready
from ..servers.vllm import engine_answers, start_engine
from ..settings.profiles import PROFILES, StackConfig
from ..settings.workload import Workload
from .settle import SETTLE_LIMIT_S, counted, stored

Messages = Sequence[Mapping[str, Any]]
Progress = Callable[[str], None]
WARM_UP = Document("warm-up", size="short", seed=0)
WARM_UP_LIMIT_S = 300.0  # 512 tokens on a core of a slow processor take some ten seconds
CHARACTERS_A_TOKEN = 8  # more than any tokenizer here makes of a token on average
RELEASE_LIMIT_S = 60.0  # LMCache gives up a silent engine after 30 s, and looks every few seconds


@dataclass
class Stack:
    """Real servers on this machine. Sizes in tokens; times in seconds.

    ``lmcache`` is ``None`` where the engine runs alone; ``lmcache_http`` is the base address of its HTTP
    side, and ``None`` there too. ``engine_has_lmcache``: the engine that runs now has the connector.
    ``lease``: a kept stack's lock. ``workload``: how much work fits this machine; ``None`` until measured.
    """

    config: StackConfig
    model: Model
    engine: Server
    lmcache: Server | None
    lmcache_http: str | None
    progress: Progress
    on_restart: Callable[[Stack], None] = lambda stack: None
    lease: IO[str] | None = None
    kept: bool = False
    engine_has_lmcache: bool = True
    workload: Workload | None = None
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60, trust_env=False))

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers, in the order in which they are started."""
        return (self.lmcache, self.engine) if self.lmcache else (self.engine,)

    def engine_answers(self) -> bool:
        """Tell whether the engine answers a request for one token."""
        return engine_answers(self.client, self.engine.url, self.model.name)

    def lmcache_answers(self) -> bool:
        """Tell whether LMCache's server is healthy."""
        return lmcache_answers(self.client, self._lmcache_url)

    @property
    def chunk_tokens(self) -> int:
        """Tokens of an LMCache chunk, as its server states them."""
        return int(self._status()["chunk_size"])

    @property
    def block_tokens(self) -> int:
        """Tokens of the engine's KV block, as its server states them."""
        text = self._get(f"{self.engine.url}/metrics").text
        line = next(line for line in text.splitlines() if line.startswith("vllm:cache_config_info{"))
        return int(line.partition('block_size="')[2].partition('"')[0])

    def tokenize(self, messages: Messages, tools: Sequence[Any] = ()) -> list[int]:
        """Render a chat request with the server's own template and return the prompt's token ids."""
        body = {"model": self.model.name, "messages": list(messages), "add_generation_prompt": True}
        body |= {"tools": list(tools)} if tools else {}
        answer = self.client.post(f"{self.engine.url}/tokenize", json=body).raise_for_status()
        tokens: list[int] = answer.json()["tokens"]
        return tokens

    @cached_property
    def renderer(self) -> Renderer:
        """The same rendering without the server, with the place of each token in the text."""
        return Renderer.from_folder(self.model.folder, self.model.chat_template)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a bare text, without template and special tokens; it may exceed the context."""
        return len(self.renderer.tokenizer.encode(text, add_special_tokens=False).ids)

    def snapshot(self) -> Snapshot:
        """Read every counter of both servers."""
        engine = self._get(f"{self.engine.url}/metrics").text
        lmcache = self._get(f"{self._lmcache_url}/metrics").text if self.lmcache else None
        return parse_snapshot(engine, lmcache)

    def empty_engine_cache(self) -> None:
        """Empty the engine's own prefix cache; LMCache keeps what it has.

        The engine may refuse while a store holds blocks (status 200, ``success: false``); it lets go of them
        in its next step, so after a while one is made. ``ask(start="lmcache")`` checks that it *is* empty.

        Raises:
            ServerError: it still refused after 30 s.
        """
        deadline = time.monotonic() + SETTLE_LIMIT_S
        for attempt in count(1):
            answer = self.client.post(f"{self.engine.url}/reset_prefix_cache").raise_for_status()
            if answer.json()["success"]:
                return
            if attempt % 10 == 0:
                self._step()
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the engine did not empty its prefix cache within {SETTLE_LIMIT_S:g} s: {answer.text}"
                )
            time.sleep(0.05)

    def empty_lmcache(self) -> None:
        """Empty LMCache's memory, where there is LMCache; further tiers keep what they have.

        LMCache leaves what is being read or written, so it is asked again until it holds nothing.

        Raises:
            ServerError: it still held something after 30 s.
        """
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while self.lmcache:
            self.client.post(f"{self._lmcache_url}/cache/clear", json={}).raise_for_status()
            held = self._status()["storage_manager"]["l1_manager"]["total_object_count"]
            if not held:
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"LMCache still held {held} objects {SETTLE_LIMIT_S:g} s after it was emptied."
                )
            time.sleep(0.05)

    def settle(self, since: Snapshot, prompts: Sequence[int], *, parallel: bool = False) -> Snapshot:
        """Wait until calls are counted by both servers, and then until LMCache has stored what it was to.

        In this order: until LMCache has counted a look-up, nobody knows what is still to be stored.

        Args:
            since: the counters before the calls.
            prompts: the prompt tokens of each call.
            parallel: the calls overlapped.

        Returns:
            The counters when the calls were counted.

        Raises:
            CountersError: they were not, or more was counted, or a chunk was not stored.
        """
        after = self.wait_counted(since, prompts)
        self._wait_stored(since, parallel=parallel)
        return after

    def wait_counted(self, since: Snapshot, prompts: Sequence[int]) -> Snapshot:
        """Wait until both servers have counted these calls, and return the counters; see :mod:`.settle`."""
        chunk = self.config.chunk_tokens if self.engine_has_lmcache else None
        return counted(self.snapshot, since, prompts, chunk=chunk)

    def _wait_stored(self, since: Snapshot, *, parallel: bool = False) -> None:
        """Wait until LMCache has stored what it was asked for and did not hold; see :mod:`.settle`."""
        if self.engine_has_lmcache:
            chunk, logs = self.config.chunk_tokens, [server.record.log for server in self.servers]
            stored(self.snapshot, since, chunk=chunk, writing=self._writing, parallel=parallel, logs=logs)

    def warm_up(self) -> float:
        """Ask a new prompt twice that is not measured; return the faster rate of its prefill [tokens/s].

        An engine's first prefill pays for its set-up. The clock is the client's, around a request for one
        token.

        Raises:
            CountersError: the servers did not count or store the calls.
            httpx.HTTPError: the engine did not answer.
        """
        encode: Callable[[str], Any] = self.renderer.tokenizer.encode
        length = PROFILES[self.config.profile].warm_up_tokens
        text = full_text(WARM_UP, length * CHARACTERS_A_TOKEN)
        took = []
        for _ in range(2):
            prompt = encode(fresh(text)).ids[:length]
            body = {"model": self.model.name, "prompt": prompt, "max_tokens": 1, "temperature": 0}
            before = self.snapshot()
            sent = time.perf_counter()
            self.client.post(
                f"{self.engine.url}/v1/completions", json=body, timeout=WARM_UP_LIMIT_S
            ).raise_for_status()
            took.append(time.perf_counter() - sent)
            self.settle(before, [length])
        return length / min(took)

    def restart_engine(self, *, lmcache: bool = True) -> None:
        """Stop the engine and start it again on the same port; LMCache's server goes on.

        Args:
            lmcache: start it with LMCache's connector; ``False`` is the control.

        Raises:
            ServerError: it did not stop or did not become ready.
        """
        self.engine.stop()
        self._wait_released()
        self.engine = start_engine(
            self.config, self.model, port=self.engine.record.port, log=Path(self.engine.record.log),
            lmcache_port=self.lmcache.record.port if lmcache and self.lmcache else None,
        )  # fmt: skip
        self.engine_has_lmcache = lmcache
        wait_until_ready(
            [(self.engine, self.engine_answers)],
            timeout_s=self.config.ready_timeout_s,
            ready=lambda server, took: self.progress(
                f"stack: vllm restarted{'' if lmcache else ' without LMCache'}, ready after {took:.0f} s"
            ),
        )
        self.warm_up()
        self.on_restart(self)

    @contextmanager
    def without_lmcache(self) -> Iterator[None]:
        """Run an engine without LMCache for a ``with`` block, then one with it; after an interrupt none."""
        self.restart_engine(lmcache=False)
        try:
            yield
        except Exception:
            self.restart_engine()
            raise
        self.restart_engine()

    def describe(self) -> dict[str, Any]:
        """Return each server's command, port and log, for the report."""
        records = [server.record for server in self.servers]
        return {
            one.name: {"command": shown(one.command), "port": one.port, "log": Path(one.log).name}
            for one in records
        }

    def close(self) -> None:
        """End the servers, unless the stack is kept; then only let go of it.

        Raises:
            ServerError: a server did not stop; everything else is ended all the same.
        """
        with ExitStack() as closing:  # calls each, also where another fails; the last named first
            if self.lease:
                closing.callback(self.lease.close)
            for server in () if self.kept else self.servers:
                closing.callback(server.stop)
            closing.callback(self.client.close)

    @property
    def _lmcache_url(self) -> str:
        if self.lmcache_http is None:
            raise ServerError(
                "this stack has no LMCache server: its engine runs alone.\n"
                f"  checked  offload is {self.config.offload!r}\n"
                "To fix: ask a stack that was started with LMCache"
            )
        return self.lmcache_http

    def _wait_released(self) -> None:
        """Wait until LMCache no longer maps the memory of a GPU engine that has ended."""
        deadline = time.monotonic() + RELEASE_LIMIT_S
        while self.lmcache and self._status().get("registered_gpu_ids"):
            if time.monotonic() > deadline:
                raise ServerError(f"LMCache held a dead engine's memory for more than {RELEASE_LIMIT_S:g} s.")
            time.sleep(0.25)

    def _step(self) -> None:
        """Let the engine make a step, and wait until that is counted: it belongs to nobody's window."""
        before = self.snapshot()
        body = {"model": self.model.name, "prompt": "step", "max_tokens": 1}
        answer = self.client.post(f"{self.engine.url}/v1/completions", json=body).raise_for_status()
        self.settle(before, [answer.json()["usage"]["prompt_tokens"]])

    def _writing(self) -> bool:
        return bool(self._status()["storage_manager"]["l1_manager"]["write_locked_count"])

    def _get(self, url: str) -> httpx.Response:
        return self.client.get(url).raise_for_status()

    def _status(self) -> Any:
        return self._get(f"{self._lmcache_url}/status").json()
