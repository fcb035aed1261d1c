"""A prompt as named segments, static and dynamic: where two part, who loses by it, what order is best."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..quantities.predict import shared_prefix_tokens
from .rendering import Message, Rendered, Renderer

Change = Literal["static", "session", "turn"]
Role = Literal["tools", "system", "user", "assistant"]
RANK: Mapping[str, int] = {"static": 0, "session": 1, "turn": 2}
SEPARATOR = "\n\n"
MARKER = "\ue000"  # a character of no script
CONTEXT_CHARACTERS = 60
Reuse = Callable[[int, int], int]
"""(shared tokens, prompt tokens) -> reused tokens: one of :mod:`predict`'s forms with its block or chunk."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A named piece of a prompt, and how often it changes: never, once a session, or at every turn.

    ``text`` of a ``tools`` segment is the JSON of one tool definition.
    """

    name: str
    change: Change
    text: str
    role: Role = "system"


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent to the server: messages and tools of the OpenAI chat API."""

    messages: tuple[Message, ...]
    tools: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """A rendered prompt and the segment that each of its tokens belongs to (empty: the template's own)."""

    segments: tuple[Segment, ...]
    rendered: Rendered
    owners: tuple[str, ...]

    def tokens(self, change: Change | None = None) -> int:
        """Count the tokens of the segments that change so; ``None`` counts all, the template's too."""
        return self.tokens_before(len(self.owners), change)

    def tokens_before(self, position: int, change: Change | None = None) -> int:
        """Count those among the first ``position`` tokens: what a reused prefix of that length holds."""
        if change is None:
            return position
        names = {segment.name for segment in self.segments if segment.change == change}
        return sum(owner in names for owner in self.owners[:position])


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two prompts part: the token, the segment it lies in, and the text around it in both.

    ``lost`` has, for the segment of the divergence and every later one, the tokens that cannot be reused.
    """

    token: int
    segment: str
    before: str
    first: str
    second: str
    lost: Mapping[str, int]


def render(segments: Sequence[Segment]) -> Request:
    """Turn segments into a request: neighbours of one role share a message, tools go to ``tools``."""
    messages: list[dict[str, Any]] = []
    for segment in segments:
        if segment.role == "tools":
            continue
        if messages and messages[-1]["role"] == segment.role:
            messages[-1]["content"] += SEPARATOR + segment.text
        else:
            messages.append({"role": segment.role, "content": segment.text})
    tools = tuple(json.loads(segment.text) for segment in segments if segment.role == "tools")
    return Request(tuple(messages), tools)


def lay_out(segments: Sequence[Segment], renderer: Renderer) -> Layout:
    """Render segments and find out which token belongs to which.

    A token belongs to the segment in which it begins; what the template and the separators add belongs to
    none. A tool is found by its text as JSON, which the template is expected to write with ``tojson``.
    """
    request = render(segments)
    rendered = renderer.render(request.messages, request.tools)
    spans = _marked_spans(segments, renderer, rendered.text)
    position = 0
    for segment in segments:
        if segment.role == "tools":
            text = json.dumps(json.loads(segment.text), ensure_ascii=False)
            if (begin := rendered.text.find(text, position)) >= 0:  # a template may ignore tools
                position = begin + len(text)
                spans.append((begin, position, segment.name))
    return Layout(tuple(segments), rendered, _owners(rendered, sorted(spans)))


def _marked_spans(segments: Sequence[Segment], renderer: Renderer, text: str) -> list[tuple[int, int, str]]:
    """Find the places of all texts by rendering once more, with a marker in place of each.

    Searching for the texts themselves would find a short one inside the template's own words. A template that
    strips texts moves them: then the search is all there is. A text that the template changed and that is not
    found has no place, and its tokens belong to no segment.
    """
    spoken = [segment for segment in segments if segment.role != "tools"]
    marked = [replace(s, text=MARKER) if s.role != "tools" else s for s in segments]
    request = render(marked)
    pieces = renderer.text(request.messages, request.tools).split(MARKER)
    spans, position, exact = [], 0, len(pieces) == len(spoken) + 1
    for segment, piece in zip(spoken, pieces, strict=False):
        begin = position + len(piece)
        exact = exact and text.startswith(segment.text, begin)
        place = (begin, begin + len(segment.text)) if exact else _found(segment.text, text, position)
        if place is None:
            continue
        position = place[1]
        spans.append((*place, segment.name))
    return spans


def _found(wanted: str, text: str, position: int) -> tuple[int, int] | None:
    """Search for a text, stripped if need be, or with other capitals if these have the same length."""
    stripped = wanted.strip()
    for one, other in ((wanted, text), (stripped, text), (stripped.lower(), text.lower())):
        begin = other.find(one, position) if len(other) == len(text) else -1
        if begin >= 0:
            return begin, begin + len(one)
    return None


def _owners(rendered: Rendered, spans: list[tuple[int, int, str]]) -> tuple[str, ...]:
    owners, place = [], 0
    for begin, _ in rendered.offsets:
        while place < len(spans) and spans[place][1] <= begin:
            place += 1
        owners.append(spans[place][2] if place < len(spans) and spans[place][0] <= begin else "")
    return tuple(owners)


def divergence(first: Layout, second: Layout) -> Divergence | None:
    """Find where the second prompt leaves the first; ``None`` if it never does within either's length."""
    token = shared_prefix_tokens(first.rendered.ids, second.rendered.ids)
    if token in (len(first.rendered), len(second.rendered)):
        return None
    lost: dict[str, int] = {}
    for owner in second.owners[token:]:
        if owner:
            lost[owner] = lost.get(owner, 0) + 1
    begin = second.rendered.offsets[token][0]
    return Divergence(
        token=token,
        segment=next((owner for owner in second.owners[token:] if owner), ""),
        before=second.rendered.text[max(0, begin - CONTEXT_CHARACTERS) : begin],
        first=first.rendered.text[first.rendered.offsets[token][0] :][:CONTEXT_CHARACTERS],
        second=second.rendered.text[begin:][:CONTEXT_CHARACTERS],
        lost=lost,
    )


def predicted_reuse(
    prompts: Sequence[Rendered], reuse: Reuse, generated: Sequence[Sequence[int]] = ()
) -> list[int]:
    """Predict what each of a sequence of requests reuses of all before it, in a cache that forgets nothing.

    Args:
        prompts: the requests as rendered, in the order in which they are asked.
        reuse: the cache's rounding.
        generated: the token ids of each answer. An engine keeps them behind their prompt, all but the last,
            whose KV is never computed; a later prompt that repeats an answer reuses them too.

    Returns:
        Reused tokens, one a request; the first is 0.
    """
    answers = [tuple(answer[:-1]) for answer in generated] or [()] * len(prompts)
    held = [(*prompt.ids, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
    found = []
    for place, prompt in enumerate(prompts):
        longest = max((shared_prefix_tokens(before, prompt.ids) for before in held[:place]), default=0)
        found.append(reuse(longest, len(prompt)) if longest else 0)
    return found


def best_order(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Put what never changes first, what changes at every turn last; within that, keep the order.

    A system text that moves below a user's, or below the tools, becomes the user's. Tools themselves stay
    where the template puts them.

    >>> clock, manual = Segment("clock", "turn", "12:00"), Segment("manual", "static", "Read this.")
    >>> [segment.name for segment in best_order([clock, manual])]
    ['manual', 'clock']
    """
    tools = any(segment.role == "tools" for segment in segments)  # templates write them below the system text
    placed: list[Segment] = []
    below_user = False
    for segment in sorted(segments, key=lambda segment: RANK[segment.change]):
        moved = segment.role == "system" and (below_user or (tools and segment.change != "static"))
        placed.append(replace(segment, role="user") if moved else segment)
        below_user |= placed[-1].role in ("user", "assistant")
    return tuple(placed)


def better_order(
    turns: Sequence[Sequence[Segment]], renderer: Renderer, reuse: Reuse
) -> tuple[tuple[Segment, ...], ...]:
    """Order a sequence of prompts as :func:`best_order` says, unless the given order already reuses as much.

    Args:
        turns: the segments of each request, in the order in which they are asked.
        renderer: renders and tokenizes.
        reuse: the cache's rounding.

    Returns:
        The turns in the order that is predicted to reuse more; never a worse one than the given.
    """
    given = tuple(tuple(turn) for turn in turns)
    ordered = tuple(best_order(turn) for turn in turns)

    def total(order: Sequence[Sequence[Segment]]) -> int:
        return sum(predicted_reuse([lay_out(turn, renderer).rendered for turn in order], reuse))

    return ordered if total(ordered) > total(given) else given
