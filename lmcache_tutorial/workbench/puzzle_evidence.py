"""What a played puzzle has left to look at: each request's tokens, counters, and what its prompts tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..machine.files import write_atomically
from ..settings.errors import ConfigError

FILE = "evidence.json"
PLAY = "To fix: play one: lmcache-tutorial puzzle"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: whose it was, counted from 1, and who served its prompt [tokens]."""

    session: int
    turn: int
    prompt: int
    computed: int
    engine: int
    memory: int
    files: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of one puzzle.

    Attributes:
        puzzle: its number.
        seen: every request, in the order in which they were asked.
        looked_up: tokens that LMCache was asked for, over all requests.
        stored_chunks: chunks that it was given to keep.
        chunk_tokens: LMCache's chunk, as its server states it [tokens].
        meant_chunk_tokens: what it is meant to be [tokens].
        salts: different values of ``cache_salt`` among the requests; none counts as one.
        culprits: what the diagnosis of the requests names, the costliest first: the kind, and the segment.
        same_answer: the first request, asked again in a namespace of its own and so computed whole, has the
            same answer, with the same log-probabilities but for rounding.
    """

    puzzle: int
    seen: tuple[Seen, ...]
    looked_up: int
    stored_chunks: int
    chunk_tokens: int
    meant_chunk_tokens: int
    salts: int
    culprits: tuple[tuple[str, str], ...]
    same_answer: bool

    def of_turn(self, turn: int) -> tuple[Seen, ...]:
        """Return the requests that were a session's so-manieth."""
        return tuple(one for one in self.seen if one.turn == turn)

    def names(self, kind: str, segment: str | None = None) -> bool:
        """Tell whether the diagnosis names a kind of change, perhaps in one segment."""
        return any(kind == found and segment in (None, where) for found, where in self.culprits)

    def write(self, folder: Path) -> None:
        """Write it down.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """Read what the last puzzle has left in a folder.

        Raises:
            ConfigError: there is none, or it is damaged.
        """
        path = folder / FILE
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            seen = tuple(Seen(**one) for one in found["seen"])
            culprits = tuple((str(kind), str(where)) for kind, where in found["culprits"])
            return cls(**{**found, "seen": seen, "culprits": culprits})
        except FileNotFoundError:
            raise ConfigError(f"no puzzle has been played: there is no {path}.\n{PLAY}") from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}.\n{PLAY}") from None


def evidence_table(found: Evidence) -> Iterator[str]:
    """Yield the lines of a table, 80 columns wide: who served each turn of all sessions, per request.

    The first request stands by itself: nobody has asked anything before it.
    """
    yield f"{'requests':<30}{'prompt':>9}{'prefilled':>11}{'engine':>8}{'memory':>8}{'files':>8}"
    yield _row("the very first", found.seen[:1])
    for turn in sorted({one.turn for one in found.seen}):
        some = [one for one in found.of_turn(turn) if one is not found.seen[0]]
        if some:
            yield _row(f"turn {turn} of {len(some)} sessions, mean", some)
    asked = {"looked up": found.looked_up, "stored": found.stored_chunks * found.chunk_tokens}
    yield f"LMCache's counters: {', '.join(f'{count:,} tokens {what}' for what, count in asked.items())}"
    answer = "the same answer" if found.same_answer else "another answer"
    yield f"the very first request, computed whole once more: {answer}"


def _row(name: str, some: Any) -> str:
    def mean(what: str) -> str:
        return f"{sum(getattr(one, what) for one in some) / len(some):,.0f}"

    widths: Mapping[str, int] = {"prompt": 9, "computed": 11, "engine": 8, "memory": 8, "files": 8}
    return f"{name:<30}" + "".join(f"{mean(what):>{width}}" for what, width in widths.items())
