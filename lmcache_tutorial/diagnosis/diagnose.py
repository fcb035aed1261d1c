"""A log of chat requests -> what it reuses, what it could, and what stands in the way. Offline: no engine.

Requests are taken in the order of their times, or of the log, as one engine with LMCache behind it would see
them. Blocks are remembered by a chain of hashes; beyond a stated number they go in vLLM's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..prompts.chat_template import IMAGE_MARK
from ..prompts.rendering import RefusedError, Renderer, RenderingError
from ..quantities.blocks import BlockMemory
from ..quantities.predict import reusable_tokens, shared_prefix_tokens
from ..settings.command_options import REMEMBERED_BLOCKS
from .culprits import ADVICE, Place, difference, kind_of, place
from .forerunner import Forerunners, Seen
from .logs import Log, Logged
from .losses import common_behind, known_turns, template_words
from .memory import IMAGE_TOKENS, Encoder
from .messages import IMAGE
from .result import Culprit, Diagnosis, Unread
from .time_limit import TooSlowError, time_limit
from .turns import Talk, talk_of

BATCH = 64  # texts that are tokenized at once, unless they are long
BATCH_CHARACTERS = 4_000_000
CONTEXT_CHARACTERS = 60
RENDERING_S = 20.0  # for one request: templates take milliseconds
SLOW_REQUESTS = 3  # after as many the template is at fault
NOTICEABLE = 0.001  # of all prompt tokens
SAID_CHARACTERS = 16  # fewer in common at the start of a message say nothing
CUT_PROMPTS = 3  # as many prompts of one length, and none longer, look cut


@dataclass(slots=True)
class _Cause:
    """One cause over all requests that it hit; the rest is of the first."""

    at: Place
    lost: int = 0
    count: int = 0
    indices: set[int | None] = field(default_factory=set)


@dataclass(slots=True)
class _Cache:
    """What one model or adapter, which never shares KV with another, has been asked."""

    memory: BlockMemory
    seen: dict[str, Forerunners] = field(default_factory=dict)  # by salt


@dataclass(frozen=True, slots=True)
class _Units:
    block: int
    chunk: int


def diagnose(
    lines: Iterable[str],
    renderer: Renderer,
    *,
    block_tokens: int,
    chunk_tokens: int,
    remembered_blocks: int = REMEMBERED_BLOCKS,
) -> Diagnosis:
    """Read a log and predict its reuse.

    Args:
        lines: the log, a request a line; see :mod:`logs` for the forms.
        renderer: the model's chat template and tokenizer.
        block_tokens: the engine's block, 1 or more.
        chunk_tokens: LMCache's chunk, a multiple of the block.
        remembered_blocks: how many blocks the cache of one model or adapter holds before the oldest go.
    """
    log, run = Log(lines), _Run(_Units(block_tokens, chunk_tokens), remembered_blocks)
    reader = _Reader(log, renderer)
    for request, seen in reader:
        run.count(request, seen)
    culprits = _culprits(run.causes, run.requests, run.prompt_tokens)
    lost_tokens = sum(culprit.lost_tokens for culprit in culprits)
    tokens = max(1, run.prompt_tokens)
    return Diagnosis(
        requests=run.requests,
        prompt_tokens=run.prompt_tokens,
        hit_rate=run.reused_tokens / tokens,
        best_hit_rate=(run.reused_tokens + lost_tokens) / tokens,
        block_tokens=block_tokens,
        chunk_tokens=chunk_tokens,
        broken_lines=log.broken,
        other_lines=log.other,
        forgotten_blocks=sum(cache.memory.forgotten for cache in run.caches.values()),
        culprits=culprits,
        refused_lines=sorted(set(reader.refused)),
        unread=[Unread(reason, lines) for reason, lines in log.reasons.items()],
        warnings=_warnings(log, reader, run.caches),
    )


@dataclass(slots=True)
class _Run:
    """What has been counted so far, and what the caches hold."""

    units: _Units
    remembered_blocks: int
    requests: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    caches: dict[str, _Cache] = field(default_factory=dict)
    causes: dict[tuple[str, str], _Cause] = field(default_factory=dict)

    def count(self, request: Logged, seen: Seen) -> None:
        """Ask a request in the mind: what it reuses, and what it could have."""
        model, salt = request.cache
        if model not in self.caches:
            self.caches[model] = _Cache(BlockMemory(self.units.block, self.remembered_blocks))
        cache = self.caches[model]
        known, prompt = cache.memory.visit(seen.ids, salt), len(seen.ids)
        reused = 0
        if prompt:
            reused = reusable_tokens(known, prompt, block=self.units.block, chunk=self.units.chunk)
        self.requests += 1
        self.prompt_tokens += prompt
        self.reused_tokens += reused
        before = cache.seen.setdefault(salt, Forerunners())
        try:
            found = _cause(before, seen, reused, self.units)
        except RecursionError:  # tools or arguments that are nested too deeply to be compared
            found = None
        if found:
            kind, at, lost = found
            cause = self.causes.setdefault((kind, at.segment), _Cause(at))
            cause.lost += lost
            cause.count += 1
            cause.indices.add(at.message_index)
        before.remember(seen)


class _Reader:
    """Requests of a log with turns, texts and tokens; what cannot be rendered is reported to the log."""

    def __init__(self, log: Log, renderer: Renderer) -> None:
        """Read a log with a model's template and tokenizer."""
        self._log, self._renderer = log, renderer
        self._slow = 0
        self.refused: list[int] = []
        self.images = 0
        self.lengths: dict[int, set[int]] = {}  # of prompts that the log has rendered: which have a length

    def __iter__(self) -> Iterator[tuple[Logged, Seen]]:
        encoder, texts = Encoder(self._renderer), self._texts()
        fields = self._renderer.fields
        while batch := _batch(texts):
            encoded = iter(encoder.encode([text for request, text in batch if request.ids is None]))
            for request, text in batch:
                ids = next(encoded) if request.ids is None else list(request.ids)
                ids = encoder.with_special(ids) if request.special else ids
                try:
                    talk = talk_of(request, text, fields)
                except RecursionError:
                    self._log.report("its brackets are nested too deeply", request.line)
                    continue
                yield request, Seen(talk, text, ids)
        self._log.broken.sort()

    def _texts(self) -> Iterator[tuple[Logged, str]]:
        for request in self._log:
            try:
                with time_limit(RENDERING_S):
                    text = self._text(request)
            except RefusedError as error:
                self.refused.append(request.line)
                self._log.report(str(error), request.line)
                continue
            except TooSlowError:
                self._too_slow(request)
                continue
            self.images += request.images
            if request.prompt is not None:
                self.lengths.setdefault(len(text), set()).add(hash(text))
            yield request, text

    def _text(self, request: Logged) -> str:
        if request.prompt is not None:
            return request.prompt
        if request.ids is not None:
            return self._decoded(request.ids)
        return _whole(self._renderer.text(request.messages, request.tools, request.variables))

    def _decoded(self, ids: tuple[int, ...]) -> str:
        try:
            return _whole(str(self._renderer.tokenizer.decode(list(ids), skip_special_tokens=False)))
        except (OverflowError, ValueError, TypeError):
            return ""

    def _too_slow(self, request: Logged) -> None:
        self._slow += 1
        self._log.report(f"the chat template ran for more than {RENDERING_S:.0f} s", request.line)
        if self._slow >= SLOW_REQUESTS:
            raise RenderingError(
                f"the chat template ran for more than {RENDERING_S:.0f} s for {self._slow} requests.\n"
                "To fix: look for a loop in it, or name another one with --tokenizer FOLDER."
            )


def _batch(texts: Iterator[tuple[Logged, str]]) -> list[tuple[Logged, str]]:
    """Take the next texts, few of them where they are long: an encoded text takes much memory."""
    batch, characters = [], 0
    for request, text in texts:
        batch.append((request, text))
        characters += len(text)
        if len(batch) >= BATCH or characters >= BATCH_CHARACTERS:
            break
    return batch


def _whole(text: str) -> str:
    """Replace halves of surrogate pairs, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _cause(before: Forerunners, seen: Seen, reused: int, units: _Units) -> tuple[str, Place, int] | None:
    """Compare with the likeliest forerunner: what made the two part, where, and the tokens lost by it."""
    if len(seen.ids) - 1 - reused < 1:
        return None
    first = before.find(seen.talk)
    if first is None:
        return None
    at = place(first.talk, seen.talk)
    if at is None:
        return _rendered_anew(first, seen, reused, units) or _short(first, seen, reused, units)
    kind = kind_of(first.talk, seen.talk, at)
    common = common_behind(first.talk, seen.talk, at, kind, before.sentences)
    if common:
        common += int(template_words(seen.talk, seen.text) * known_turns(first.talk, seen.talk, at))
    lost = _lost(common, first, seen, reused, units)
    if lost >= units.block:
        return kind, at, lost
    return _short(first, seen, reused, units)


def _lost(characters: int, first: Seen, seen: Seen, reused: int, units: _Units) -> int:
    """Estimate the tokens of characters behind the divergence by their share of it, in whole blocks."""
    behind = len(seen.text) - difference(first.text, seen.text)
    tokens = len(seen.ids) - shared_prefix_tokens(first.ids, seen.ids)
    estimate = int(min(1.0, characters / max(1, behind)) * tokens)
    return min(estimate, len(seen.ids) - 1 - reused) // units.block * units.block


def _short(first: Seen, seen: Seen, reused: int, units: _Units) -> tuple[str, Place, int] | None:
    """Find a prefix that is shared, and more than the template's own words, but no whole chunk or block."""
    shared = min(shared_prefix_tokens(first.ids, seen.ids), len(seen.ids) - 1)
    lost = shared - reused
    enough = lost >= units.block // 2 or (reused == 0 and 2 * shared >= len(seen.ids))
    if shared >= units.chunk or lost < 1 or not enough or not _says_the_same(first.talk, seen.talk):
        return None
    segment = "system" if seen.talk.systems else "tools" if seen.talk.tools else "user"
    text = seen.talk.turns[0][1] if seen.talk.turns else ""
    other = first.talk.turns[0][1] if first.talk.turns else ""
    return "short_prefix", Place(segment, None if segment == "tools" else 0, other, text), lost


def _says_the_same(first: Talk, second: Talk) -> bool:
    """Tell whether two requests share a message, their tools, or the start of their first message."""
    if not first.turns or not second.turns:
        return False
    if first.turns[0] == second.turns[0] or (second.tools and first.tools == second.tools):
        return True
    (role, one), (other_role, other) = first.turns[0], second.turns[0]
    same = difference(one, other)
    return role == other_role and same >= SAID_CHARACTERS and 2 * same >= len(other)


def _rendered_anew(first: Seen, seen: Seen, reused: int, units: _Units) -> tuple[str, Place, int] | None:
    """Find a chat template that renders earlier turns in another way once the conversation goes on."""
    at = difference(first.text, seen.text)
    behind = _last_word(first) - at
    lost = _lost(behind, first, seen, reused, units)
    if behind <= 0 or lost < units.block:
        return None
    index, position = 0, 0
    for number, (_, text) in enumerate(seen.talk.turns):
        found = seen.text.find(text[:40], position)
        if found > at:
            break
        if found >= 0:
            index, position = number, found
    return "history_rewritten", Place("history", index, first.text, seen.text), lost


def _last_word(seen: Seen) -> int:
    """Return where the last message with a text ends in the prompt; behind it is the template's own."""
    for _, text in reversed(seen.talk.turns):
        ending = text.strip()[-20:]
        if ending and (found := seen.text.rfind(ending)) >= 0:
            return found + len(ending)
    return len(seen.text)


def _culprits(causes: dict[tuple[str, str], _Cause], requests: int, tokens: int) -> list[Culprit]:
    """Sort the causes by what they cost; two texts that have a sentence in common by chance are none."""
    found = []
    for (kind, segment), cause in causes.items():
        if cause.lost < NOTICEABLE * tokens:
            continue
        before, after = _context(cause.at)
        found.append(
            Culprit(
                kind=kind,
                segment=segment,
                message_index=cause.at.message_index,
                lost_tokens=cause.lost,
                share_of_requests=cause.count / requests,
                before=before,
                after=after,
                advice=ADVICE[kind],
                requests=cause.count,
                messages=len(cause.indices),
            )
        )
    return sorted(found, key=lambda culprit: -culprit.lost_tokens)


def _context(at: Place) -> tuple[str, str]:
    start = difference(at.first, at.second)
    image = at.second.rfind(IMAGE_MARK, 0, start)
    if image >= 0 and IMAGE.match(at.second, image):  # show the mark whole
        start = image
    before = at.second[max(0, start - CONTEXT_CHARACTERS) : start]
    after = at.second[start : start + CONTEXT_CHARACTERS]
    return IMAGE.sub("<image>", before), IMAGE.sub("<image>", after)


def _warnings(log: Log, reader: _Reader, caches: dict[str, _Cache]) -> list[str]:
    """Say what makes the figures less certain."""
    found = []
    if log.reordered:
        found.append("the log is not in the order of its times; requests were taken in that order")
    if len(caches) > 1:
        found.append(
            f"{len(caches)} models or adapters, each with a cache of its own; all are counted with one "
            "template and tokenizer"
        )
    salts = sum(len(cache.seen) for cache in caches.values()) - len(caches)
    if salts:
        found.append("requests of different cache_salt share nothing")
    if reader.images:
        found.append(
            f"{reader.images} images or other media: each is counted as {IMAGE_TOKENS} tokens, since the "
            "real number depends on the model"
        )
    longest = max(reader.lengths, default=0)
    if len(reader.lengths.get(longest, ())) >= CUT_PROMPTS:
        found.append(
            f"{len(reader.lengths[longest])} prompts have exactly {longest:,} characters and none has more: "
            "vLLM's --max-log-len may have cut them"
        )
    return found
