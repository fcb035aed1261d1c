"""TTFT as a benchmark, for comparing runs; on request only (``pytest --benchmark-only``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from pytest_benchmark.fixture import BenchmarkFixture

from ..asking.cache_state import Start, check_held
from ..asking.first_token import read_to_first_token
from ..asking.token_sources import token_sources
from ..prompts.documents import fresh
from ..quantities.records import TokenSources
from ..quantities.statistics import hit_rate
from ..servers.counters import Snapshot
from ..stack.stack import Stack
from .reader import Reader

QUESTIONS = ("Which class stores a chunk?", "What decides which chunk is evicted first?")
ANSWER_TOKENS = 4


class FirstToken:
    """A target that returns at the first token. What comes before it is set up untimed, once a round."""

    def __init__(self, stack: Stack, rounds: int, bench: BenchmarkFixture) -> None:
        self.stack, self.rounds, self.bench = stack, rounds, bench
        self._served: list[TokenSources] = []
        self._asked: _Asked | None = None

    def benchmark(self, text: str, *, start: Start) -> None:
        """Time the first token of a question about ``text``, which every round makes new with a nonce.

        Args:
            text: the manual.
            start: ``cold``, it is asked about for the first time; ``engine``, another question about the same
                copy of it was asked before; ``lmcache``, and then the engine's own cache emptied.

        Raises:
            CacheStateError: a round's tokens came from elsewhere.
        """

        def setup() -> tuple[tuple[bytes], dict[str, object]]:
            self._finish_round()
            manual = fresh(text)
            if start != "cold":
                first = self._prepare(manual, QUESTIONS[0])
                self._send(first.body).read()
                self.stack.settle(first.before, [first.prompt_tokens])
            if start == "lmcache":
                self.stack.empty_engine_cache()
            self._asked = self._prepare(manual, QUESTIONS[1])
            return (self._asked.body,), {}

        pedantic: Any = self.bench.pedantic  # untyped in pytest-benchmark
        pedantic(self._first_token, setup=setup, rounds=self.rounds, iterations=1)
        self._finish_round()
        for tokens in self._served:
            check_held(start, tokens, "a round of the benchmark")
        self.bench.extra_info["hit_rate"] = round(hit_rate(self._served), 4)

    def _first_token(self, body: bytes) -> None:
        assert self._asked
        self._asked.answer = self._send(body)
        self._asked.lines = self._asked.answer.iter_lines()
        read_to_first_token(self._asked.lines)

    def _finish_round(self) -> None:
        """Read the rest of the last round's answer, and who served its prompt."""
        if self._asked and self._asked.answer and self._asked.lines:
            for _ in self._asked.lines:
                pass
            self._asked.answer.close()
            before = self._asked.before
            after = self.stack.settle(before, [self._asked.prompt_tokens])
            cached = after.engine + after.external - before.engine - before.external
            self._served.append(token_sources(before, after, cached_tokens=cached))
            self._asked = None

    def _prepare(self, manual: str, question: str) -> _Asked:
        messages = Reader.messages(manual, question)
        body = {
            "model": self.stack.model.name,
            "messages": messages,
            "temperature": 0,
            "max_tokens": ANSWER_TOKENS,
            "stream": True,
        }
        content = httpx.Request("POST", "http://engine", json=body).content
        return _Asked(content, len(self.stack.tokenize(messages)), self.stack.snapshot())

    def _send(self, body: bytes) -> httpx.Response:
        request = self.stack.client.build_request(
            "POST",
            f"{self.stack.url}/v1/chat/completions",
            content=body,
            headers={"content-type": "application/json"},
            timeout=300,
        )
        return self.stack.client.send(request, stream=True).raise_for_status()


@dataclass
class _Asked:
    """One request: its body, its prompt's length, the counters before it; then its answer, as it comes."""

    body: bytes
    prompt_tokens: int
    before: Snapshot
    answer: httpx.Response | None = None
    lines: Iterator[str] | None = None
