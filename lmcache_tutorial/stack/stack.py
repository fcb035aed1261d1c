"""A running stack: its engines, caches, tiers and router, and what can be asked of them together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count
from typing import IO, Any

import httpx

from ..models.model import Model
from ..prompts.documents import Document, fresh, full_text
from ..prompts.layout import Reuse
from ..prompts.rendering import Renderer
from ..quantities.predict import engine_reusable_tokens, reusable_tokens
from ..servers.counters import Snapshot
from ..servers.lmcache import Cache
from ..servers.process import ServerError
from ..servers.program import Program, Site, Tier
from ..servers.vllm import Engine, Messages
from ..settings.profiles import PROFILES
from ..settings.topology import StackConfig
from ..settings.workload import Workload
from .settle import SETTLE_LIMIT_S, Settling

Progress = Callable[[str], None]
WARM_UP = Document("warm-up", size="short", seed=0)
WARM_UP_PROMPTS = 2  # each engine's; LMCache keeps them like any other
WARM_UP_LIMIT_S = 300.0  # 512 tokens on a core of a slow processor take some ten seconds
CHARACTERS_A_TOKEN = 8  # more than any tokenizer here makes of a token on average


@dataclass
class Stack:
    """Servers that run together. Sizes in tokens; times in seconds.

    ``programs`` are in the order in which they start: tiers, caches, engines, the router. They were started
    here, kept from an earlier run, or found at their addresses; what none of ours may be told to do, such as
    a restart, raises :class:`ServerError`. ``lease``: a kept stack's lock. ``workload``: how much work fits
    this machine; ``None`` until measured. ``may_drop``: its caches are meant to be too small for what is
    asked; then a store that finds no room is no error, and each call waits until what is over is evicted.
    ``lacks``: what a test may need and not have here -> why; nothing lacks where the servers are ours.
    ``api_key``: what its engines ask for.
    """

    config: StackConfig
    model: Model
    programs: tuple[Program, ...]
    progress: Progress
    client: httpx.Client
    on_restart: Callable[[Stack], None] = lambda stack: None
    lease: IO[str] | None = None
    kept: bool = False
    workload: Workload | None = None
    may_drop: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    api_key: str = field(default="none", repr=False)

    @classmethod
    def of(cls, site: Site, progress: Progress) -> Stack:
        """Make a stack of the programs of a site."""
        return cls(site.config, site.model, tuple(site.programs), progress, site.client)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines."""
        return tuple(one for one in self.programs if isinstance(one, Engine))

    @property
    def caches(self) -> tuple[Cache, ...]:
        """The cache servers."""
        return tuple(one for one in self.programs if isinstance(one, Cache))

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """What stands behind the caches."""
        return tuple(one for one in self.programs if isinstance(one, Tier))

    @property
    def router(self) -> Program | None:
        """What stands in front of the engines, if anything does."""
        return self.programs[-1] if self.config.router else None

    @property
    def engine(self) -> Engine:
        """The only engine of a stack that has exactly one."""
        (only,) = self.engines
        return only

    @property
    def cache(self) -> Cache:
        """The only cache of a stack that has exactly one.

        Raises:
            ServerError: its engines run alone.
        """
        if not self.caches:
            raise ServerError(
                "this stack has no LMCache server: its engine runs alone.\n"
                "  checked  the topology has no cache\n"
                "To fix: ask a stack that was started with LMCache"
            )
        (only,) = self.caches
        return only

    @property
    def url(self) -> str:
        """Where requests go: the router's address, or the only engine's."""
        return self.router.url if self.router else self.engine.url

    @property
    def urls(self) -> tuple[str, ...]:
        """Every address that requests may go to: the router's alone, or each engine's."""
        return (self.router.url,) if self.router else tuple(engine.url for engine in self.engines)

    @property
    def chunk_tokens(self) -> int:
        """Tokens of an LMCache chunk, as its server states them; all caches of a stack have the same.

        Raises:
            ServerError: its engines run alone.
        """
        return (self.caches[0] if self.caches else self.cache).chunk_tokens

    @property
    def block_tokens(self) -> int:
        """Tokens of the engine's KV block, as its server states them."""
        return self.engines[0].block_tokens

    @property
    def kv_bytes_per_token(self) -> int:
        """The keys and values of one token, in the stack's number format, on all GPUs together [bytes]."""
        return self.model.kv_bytes_per_token(self.config.dtype, self.config.tensor_parallel)

    def tokenize(self, messages: Messages, tools: Sequence[Any] = ()) -> list[int]:
        """Render a chat request with the server's own template and return the prompt's token ids."""
        return self.engines[0].tokenize(messages, tools)

    @property
    def reuse(self) -> Reuse:
        """The form that predicts what a prompt reuses of another: (shared tokens, its tokens) -> tokens."""
        if not self.config.caches:
            return partial(engine_reusable_tokens, block=self.block_tokens)
        return partial(reusable_tokens, block=self.block_tokens, chunk=self.chunk_tokens)

    def road_s(self, messages: Messages) -> float | None:
        """Time the way of a chat request to the first engine's clock and back, without the engine [s].

        ``None`` where that clock is not read.
        """
        return self.engines[0].road_s(messages)

    def detokenizer_s(self, prompt: Sequence[int]) -> float | None:
        """Time what the server's detokenizer does at the first token [s]; ``None`` without its tokenizer."""
        return self.renderer.detokenizer_start_s(prompt)

    @cached_property
    def renderer(self) -> Renderer:
        """The same rendering without the server, with the place of each token in the text."""
        return Renderer.from_folder(self.model.folder, self.model.chat_template)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a bare text, without template and special tokens; it may exceed the context."""
        return len(self.renderer.tokenizer.encode(text, add_special_tokens=False).ids)

    def snapshot(self) -> Snapshot:
        """Read every counter of every server.

        Raises:
            CountersError: an engine has no counter of prompt tokens.
        """
        engines = tuple(engine.counters() for engine in self.engines)
        return Snapshot(engines, tuple(cache.counters() for cache in self.caches))

    def empty_engine_cache(self) -> None:
        """Empty the engines' own prefix caches; LMCache keeps what it has.

        An engine may refuse while a store holds blocks; it lets go of them in its next step, so after a while
        one is made. ``ask(start="lmcache")`` checks that it *is* empty.

        Raises:
            ServerError: it still refused after 30 s.
        """
        for engine in self.engines:
            deadline = time.monotonic() + SETTLE_LIMIT_S
            for attempt in count(1):
                if engine.empty_prefix_cache():
                    break
                if attempt % 10 == 0:
                    self._step(engine)
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"{engine.name} did not empty its prefix cache within {SETTLE_LIMIT_S:g} s."
                    )
                time.sleep(0.05)

    def empty_lmcache(self) -> None:
        """Empty LMCache's memory, where there is LMCache; further tiers keep what they have.

        LMCache leaves what is being read or written, so it is asked again until it holds nothing.

        Raises:
            ServerError: it still held something after 30 s.
        """
        for cache in self.caches:
            deadline = time.monotonic() + SETTLE_LIMIT_S
            while True:
                cache.clear()
                if not (held := cache.held_objects):
                    break
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"{cache.name} still held {held} objects {SETTLE_LIMIT_S:g} s after it was emptied."
                    )
                time.sleep(0.05)

    def empty_tiers(self) -> None:
        """Empty what lies behind LMCache, for text that nobody will ask for again: room, and no new state.

        Raises:
            ServerError: a tier cannot be emptied while LMCache uses it.
        """
        for tier in self.tiers:
            tier.clear()

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
        self._settling.stored(since, parallel=parallel)
        if self.may_drop:
            self._settling.evicted(lambda: any(cache.is_to_evict for cache in self.caches))
        return after

    def wait_counted(self, since: Snapshot, prompts: Sequence[int]) -> Snapshot:
        """Wait until all servers have counted these calls, and return the counters; see :mod:`.settle`."""
        return self._settling.counted(since, prompts)

    @property
    def logs(self) -> list[str]:
        """The logs of the programs that are ours."""
        return [one.server.record.log for one in self.programs if one.server]

    @property
    def front_pids(self) -> list[int]:
        """The processes of ours that take requests and send answers: a router, and each engine's API server.

        The processes below an engine's, which compute, are not among them.
        """
        return [one.server.record.server for one in (self.router, *self.engines) if one and one.server]

    @property
    def _settling(self) -> Settling:
        """How its servers are waited for, as they run now: an engine may have lost its connector."""
        parts = self.config.tensor_parallel
        return Settling(self.snapshot, self._chunk, self._writing, self.logs, self.may_drop, parts)

    @property
    def _chunk(self) -> int | None:
        """LMCache's chunk [tokens]; ``None`` where no engine is connected to a cache."""
        if not any(engine.cache for engine in self.engines):
            return None
        return self.config.caches[0].chunk_tokens  # all have the same, see StackConfig

    def warm_up(self) -> float:
        """Ask each engine a new prompt twice; return the fastest rate of its prefill [tokens/s].

        Nothing of it is measured for a lesson. An engine's first prefill pays for its set-up. The clock is
        the client's, around a request for one token.

        Raises:
            CountersError: the servers did not count or store the calls.
            httpx.HTTPError: an engine did not answer.
        """
        context_tokens = min(engine.context_tokens for engine in self.config.engines)
        length = min(PROFILES[self.config.profile].warm_up_tokens, context_tokens - 1)
        took = []
        for engine in [*self.engines] * WARM_UP_PROMPTS:
            prompt = self.fresh_prompt(length)
            before = self.snapshot()
            sent = time.perf_counter()
            engine.complete(prompt, limit_s=WARM_UP_LIMIT_S).raise_for_status()
            took.append(time.perf_counter() - sent)
            self.settle(before, [length])
        return length / min(took)

    def differences(self) -> Iterator[str]:
        """Yield a sentence for everything that a server states otherwise than the configuration says.

        Predictions are made from the configuration: a chunk of another size would look like a lack of memory.
        """
        for program in self.programs:
            yield from program.differences(self.config)

    def describe(self) -> dict[str, Any]:
        """Return each server's command, port and log, for the report."""
        return {program.name: program.describe() for program in self.programs}

    def close(self) -> None:
        """End the servers, unless the stack is kept or was found; then only let go of it.

        Raises:
            ServerError: a server did not stop; everything else is ended all the same.
        """
        ours = [program.server for program in self.programs if program.server and not self.kept]
        with ExitStack() as closing:  # calls each, also where another fails; the last named first
            if self.lease:
                closing.callback(self.lease.close)
            if ours:  # side by side: an engine takes seconds
                threads = closing.enter_context(ThreadPoolExecutor(len(ours)))
                for server in ours:
                    closing.callback(threads.submit(server.stop).result)
            closing.callback(self.client.close)

    def fresh_prompt(self, tokens: int) -> list[int]:
        """Make the ids of a prompt of so many tokens that no cache knows."""
        encode: Callable[[str], Any] = self.renderer.tokenizer.encode
        ids: list[int] = encode(fresh(full_text(WARM_UP, tokens * CHARACTERS_A_TOKEN))).ids[:tokens]
        return ids

    def _step(self, engine: Engine) -> None:
        """Let an engine make a step, and wait until that is counted: it belongs to nobody's window."""
        before = self.snapshot()
        answer = engine.complete("step").raise_for_status()
        self.settle(before, [answer.json()["usage"]["prompt_tokens"]])

    def _writing(self) -> bool:
        return any(cache.writing for cache in self.caches)
