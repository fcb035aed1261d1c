"""A stack that was found at an address: somebody else's, and others may use it meanwhile.

It is asked, and nothing else: it is never started, stopped or restarted, and only where that was allowed is
its engine's own cache emptied. Its counters count everybody's requests, so they are no witnesses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import httpx

from ..prompts.rendering import Renderer
from ..quantities.records import LookedUp
from ..servers.counters import Snapshot
from ..servers.process import ServerError
from ..servers.vllm import Messages
from .stack import Stack

# What a test may need that a deployment may lack: the names of the fixtures by which a test says so.
NEEDS = {
    "own_stack": "servers of its own beside the run's",
    "restarts": "servers that it may stop and start",
    "counters": "the engine's counters, which count nobody else's requests",
    "whose_tokens": "to be told whether the engine or LMCache served the tokens",
    "emptying": "to empty the engine's own cache, so that LMCache alone serves",
    "chunks": "the size of LMCache's chunk",
    "rendering": "the model's tokenizer and chat template",
    "engine_times": "the engine's own times of each request",
    "generated_ids": "the token ids of an answer",
}
REST_S = 0.2  # what an engine has computed is stored behind it a moment after its answer
STORED_LIMIT_S = 5.0  # others may be storing without end
Body = Mapping[str, Any]


def lacking(need: str, why: str) -> str:
    """Say in one line what a test needs, why it does not have it here, and what to do.

    >>> lacking("chunks", "no LMCache is named. To fix: --kv-lmcache-url=http://…")
    "it needs the size of LMCache's chunk, and no LMCache is named. To fix: --kv-lmcache-url=http://…"
    """
    return f"it needs {NEEDS[need]}, and {why}"


def _refuse(what: str) -> NoReturn:
    raise ServerError(
        f"a deployment that was found is asked alone: {what}.\n"
        "To fix: a test that does this must ask for the fixture that says so (stack/found.py, NEEDS)"
    )


@dataclass
class FoundStack(Stack):
    """A deployment as a stack.

    ``place`` puts a request into the run's namespace; ``forget`` empties the engine's own cache, ``None``
    where that was not allowed; ``found_renderer`` renders as the server does, ``None`` without its tokenizer.
    ``looked_up`` tells what LMCache found of the prompt of an answer, by the answer's id. ``engine_is_empty``
    tells that nothing was asked since the engine's own cache was emptied.
    """

    place: Callable[[Body], Body] = field(default=lambda body: body)
    forget: Callable[[], None] | None = None
    found_renderer: Renderer | None = None
    looked_up: Callable[[str], LookedUp | None] = lambda answer_id: None
    engine_is_empty: bool = False

    @property
    def renderer(self) -> Renderer:
        """What renders as the server does."""
        return self.found_renderer or _refuse("nothing here renders as it does")

    @property
    def block_tokens(self) -> int:
        """Tokens of the engine's KV block, as it was found."""
        return self.config.engine.block_tokens or _refuse("it does not tell its block")

    @property
    def chunk_tokens(self) -> int:
        """Tokens of an LMCache chunk, as it was found."""
        return self.config.cache.chunk_tokens if self.config.caches else _refuse("no LMCache was named")

    @property
    def kv_bytes_per_token(self) -> int:
        """Not told by any server."""
        _refuse("it does not tell what a token's KV takes")

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a bare text: by the tokenizer, else the server counts."""
        if self.found_renderer:
            return super().count_tokens(text)
        body = {"model": self.model.name, "prompt": text, "add_special_tokens": False}
        answer = self.client.post(f"{self.url}/tokenize", json=body)
        if answer.status_code == httpx.codes.BAD_REQUEST:  # some versions refuse what exceeds the context
            return self.config.engine.context_tokens + 1
        return len(answer.raise_for_status().json()["tokens"])

    def road_s(self, messages: Messages) -> float | None:
        """Not timed: the engine's clock is not read."""
        return None

    def detokenizer_s(self, prompt: Sequence[int]) -> float | None:
        """Time the detokenizer where the tokenizer is here."""
        return self.found_renderer.detokenizer_start_s(prompt) if self.found_renderer else None

    def empty_engine_cache(self) -> None:
        """Empty the engine's own cache, where that was allowed.

        Raises:
            ServerError: it was not.
        """
        if self.forget is None:
            _refuse("nobody has allowed to empty its engine's cache")
        self.forget()
        self.engine_is_empty = True

    def empty_lmcache(self) -> None:
        """Refuse."""
        _refuse("LMCache is not emptied")

    def empty_tiers(self) -> None:
        """Refuse."""
        _refuse("tiers are not emptied")

    def snapshot(self) -> Snapshot:
        """Refuse."""
        _refuse("its counters count others' requests too")

    def settle(self, since: Snapshot, prompts: Sequence[int], *, parallel: bool = False) -> Snapshot:
        """Refuse."""
        _refuse("its counters count others' requests too")

    def wait_counted(self, since: Snapshot, prompts: Sequence[int]) -> Snapshot:
        """Refuse."""
        _refuse("its counters count others' requests too")

    def rest(self) -> None:
        """Wait until what was computed is probably stored; LMCache tells where it was named."""
        time.sleep(REST_S)
        deadline = time.monotonic() + STORED_LIMIT_S
        with suppress(httpx.HTTPError, LookupError, ValueError):
            while any(cache.writing for cache in self.caches) and time.monotonic() < deadline:
                time.sleep(REST_S)

    def describe(self) -> dict[str, Any]:
        """Nothing of it is a server of ours."""
        return {}

    def close(self) -> None:
        """Leave it as it is; its connections belong to whoever found it."""
