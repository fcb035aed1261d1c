"""A puzzle is played: the sessions of an application on its stack, and what they leave to look at."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diagnosis.diagnose import diagnose
from ..machine.files import write_atomically
from ..prompts.documents import Document, cut, fresh
from ..prompts.rendering import Renderer
from ..quantities.room import Room
from ..servers.file_tier import FileTier
from ..stack.stack import Stack
from .puzzle_evidence import Evidence, Seen
from .puzzles import Message, Puzzle, Request

if TYPE_CHECKING:
    from ..asking.ask import Asker
    from ..quantities.records import Turn

REQUESTS = "requests.jsonl"
SESSIONS, TURNS = 6, 3
SYSTEM_CHUNKS, PASTED_CHUNKS = 4, 3  # of the system prompt, and of what each question pastes
ANSWER_TOKENS = 6
QUESTION = "What is this?"
TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{what} of the manual.",
            "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
        },
    }
    for name, what in (("find", "Finds a line"), ("read", "Reads a page"), ("search", "Searches all"))
)
Show = Callable[[str], None]


@dataclass(frozen=True)
class Application:
    """An application of some sessions: one system prompt with a manual, tools, and questions that paste text.

    Attributes:
        renderer: of the model that it asks.
        chunk_tokens: LMCache's chunk as it is meant to be; texts are cut by it [tokens].
        seed: decides which texts these are.
    """

    renderer: Renderer
    chunk_tokens: int
    seed: int = field(default_factory=lambda: secrets.randbelow(1_000))

    @cached_property
    def system(self) -> str:
        """The system prompt; no cache knows its first words."""
        return fresh(self._text("system", SYSTEM_CHUNKS))

    @cached_property
    def pasted(self) -> tuple[tuple[str, ...], ...]:
        """What each question of each session pastes: session -> turn -> text."""
        text = self._text("pasted", SESSIONS * TURNS * PASTED_CHUNKS)
        width = len(text) // (SESSIONS * TURNS)
        pieces = [text[at * width :][:width] for at in range(SESSIONS * TURNS)]
        return tuple(tuple(pieces[at * TURNS :][:TURNS]) for at in range(SESSIONS))

    def request(self, session: int, answers: Sequence[str]) -> Request:
        """Build the next request of a session as it is meant: all that was said, and a new question.

        Args:
            session: its place, from 0.
            answers: to its questions so far.
        """
        messages: list[Message] = [{"role": "system", "content": self.system}]
        for turn in range(len(answers) + 1):
            text = f"{self.pasted[session][turn]}\n{QUESTION}"
            messages.append({"role": "user", "content": text})
            messages += [{"role": "assistant", "content": one} for one in answers[turn : turn + 1]]
        return Request(len(answers) + 1, tuple(messages), TOOLS)

    def room(self, block_tokens: int, kv_bytes_per_token: int) -> Room:
        """Compute what the longest prompt takes; an answer is taken for as long as it may be."""
        last = [self.request(session, [" word" * ANSWER_TOKENS] * (TURNS - 1)) for session in range(SESSIONS)]
        lengths = [len(self.renderer.render(one.messages, one.tools).ids) for one in last]
        return Room(max(lengths), block_tokens, self.chunk_tokens, kv_bytes_per_token)

    def _text(self, name: str, chunks: int) -> str:
        def count(text: str) -> int:
            return len(self.renderer.tokenizer.encode(text, add_special_tokens=False).ids)

        return cut(Document(name, "short", self.seed), chunks * self.chunk_tokens, count)


def play(
    puzzle: Puzzle, ask: Asker, application: Application, folder: Path, show: Show = lambda line: None
) -> Evidence:
    """Run the application on the puzzle's stack, and write down what can be seen of it.

    Each request finds the engine's own cache empty, as after a restart of the engine.

    Args:
        puzzle: whose stack runs.
        ask: asks it; its traces are what a reader looks at.
        application: new to every cache.
        folder: for the requests, one a line, and the evidence.
        show: told of each turn.

    Raises:
        CountersError: somebody else uses the stack.
        OSError: the folder cannot be written.
    """
    from ..graphs.reader import build_sender

    stack, sender = ask.stack, build_sender(ask, ANSWER_TOKENS)
    stack.may_drop = True  # its memory may be meant to be too small
    stack.empty_lmcache()
    if puzzle.stale:
        _make_stale(stack, [application.request(session, []) for session in range(SESSIONS)])
    before = stack.snapshot()
    turns: list[Turn] = []
    answers: list[list[str]] = [[] for _ in range(SESSIONS)]
    for turn in range(TURNS):
        show(f"turn {turn + 1} of {SESSIONS} sessions")
        for session in range(SESSIONS):
            request = puzzle.application(application.request(session, answers[session]))
            stack.empty_engine_cache()
            turns.append(ask(sender, _state(request)))
            answers[session].append(turns[-1].call.text)
    after, sent = stack.snapshot(), [turn.call.request for turn in turns]
    write_atomically(folder / REQUESTS, "".join(f"{json.dumps(one)}\n" for one in sent))
    found = Evidence(
        puzzle.number,
        tuple(_seen(place, turn) for place, turn in enumerate(turns)),
        looked_up=after.lookup_requested - before.lookup_requested,
        stored_chunks=after.stored_chunks - before.stored_chunks,
        chunk_tokens=stack.chunk_tokens,
        meant_chunk_tokens=application.chunk_tokens,
        salts=len({one.get("cache_salt") for one in sent}),
        culprits=_culprits(sent, stack, application.chunk_tokens),
        same_answer=_same_answer(stack, turns[0]),
    )
    found.write(folder)
    return found


def _state(request: Request) -> dict[str, Any]:
    """Build the input of the graph that sends a request.

    The model's wish to end its answer is passed over: with the KV of other texts it may have it at once.
    """
    salt = {"cache_salt": request.salt} if request.salt else {}
    options = {"extra_body": {"ignore_eos": True, **salt}}
    return {"messages": list(request.messages), "tools": list(request.tools), "options": options}


def _seen(place: int, turn: Turn) -> Seen:
    tokens = turn.tokens
    return Seen(
        session=place % SESSIONS + 1,
        turn=place // SESSIONS + 1,
        prompt=tokens.prompt,
        computed=tokens.computed,
        engine=tokens.engine,
        memory=tokens.lmcache_l1,
        files=tokens.lmcache_l2,
    )


def _culprits(sent: Sequence[Any], stack: Stack, chunk_tokens: int) -> tuple[tuple[str, str], ...]:
    """Say what the diagnosis names of the requests, as the command does."""
    lines = [json.dumps(one) for one in sent]
    told = diagnose(lines, stack.renderer, block_tokens=stack.block_tokens, chunk_tokens=chunk_tokens)
    return tuple((one.kind, one.segment) for one in told.culprits)


def _same_answer(stack: Stack, first: Turn) -> bool:
    """Ask the first request once more in a namespace of its own, and compare the answers but for rounding."""
    from ..asking.known import COARSE_TOLERANCE, TOLERANCE

    body = {**first.call.request, "stream": False, "cache_salt": secrets.token_hex(8)}
    body.pop("stream_options", None)
    before = stack.snapshot()
    answer = stack.client.post(f"{stack.url}/v1/chat/completions", json=body, timeout=300).raise_for_status()
    stack.settle(before, [first.call.prompt_tokens])
    (choice,) = answer.json()["choices"]
    again = [token["logprob"] for token in choice["logprobs"]["content"]]
    moved = [abs(one - other) for one, other in zip(again, first.call.logprobs, strict=False)]
    same_text = choice["message"]["content"] == first.call.text
    return bool(same_text and max(moved) <= TOLERANCE.get(stack.config.dtype, COARSE_TOLERANCE))


def _make_stale(stack: Stack, requests: Sequence[Request]) -> None:
    """Have the requests' KV stored, and give each file the KV of another one; no memory holds it any more."""
    (tier,) = stack.tiers
    assert isinstance(tier, FileTier)
    for one in requests:
        prompt, before = stack.tokenize(one.messages, one.tools), stack.snapshot()
        stack.engine.complete(prompt, limit_s=300).raise_for_status()
        stack.settle(before, [len(prompt)])
    stack.empty_engine_cache()
    stack.empty_lmcache()
    paths = tier.paths
    aside = paths[0].with_name(f"{paths[0].name}.aside")
    paths[0].rename(aside)
    for place, other in pairwise(paths):
        other.rename(place)
    aside.rename(paths[-1])
