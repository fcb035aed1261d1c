"""What of a file of traces was sent: a ledger beside it, so that nothing is lost and a resend is counted.

A file of traces is a spool: one OTLP export request a line, only ever appended to. The ledger notes before a
batch is sent where it begins and ends, and after it whether it was taken. A sender that dies in between
leaves a batch of which nobody knows; that one alone is sent again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Fate = Literal["sending", "taken", "refused", "put off"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a spool, and where it ends [bytes]."""

    document: dict[str, Any]
    begin: int
    end: int


class Ledger:
    """The ledger of one spool.

    ``sent_to`` is where the part ends whose fate is known [bytes]; ``doubtful`` tells that a batch behind it
    may have been taken; ``resent`` counts how often such a batch was sent again; ``taken`` has the ids of the
    traces that were taken since it was opened.
    """

    def __init__(self, spool: Path) -> None:
        """Read what was noted so far; a last line that was cut off counts for nothing."""
        self.spool, self.path = spool, spool.with_suffix(".sent")
        self.sent_to, self.doubtful, self.resent = 0, False, 0
        self.taken: set[str] = set()
        for note in self._notes():
            self.doubtful = note["fate"] == "sending"
            if not self.doubtful:
                self.sent_to = int(note["end"])

    @contextmanager
    def locked(self) -> Iterator[Ledger | None]:
        """Keep other senders away for a ``with`` block; ``None`` where one is at work."""
        with self.path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield Ledger(self.spool)  # read again: another one may just have ended

    def note(self, fate: Fate, begin: int, end: int, reason: str = "") -> None:
        """Write down what becomes of a part of the spool; it is on the disk when this returns."""
        line = {"fate": fate, "begin": begin, "end": end} | ({"reason": reason} if reason else {})
        with self.path.open("ab") as file:
            if file.tell() and not self._ends_whole():
                file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.resent += fate == "sending" and self.doubtful
        self.doubtful = fate == "sending"
        if not self.doubtful:
            self.sent_to = end

    def unsent(self) -> Iterator[Line]:
        """Yield the lines that nobody has taken yet; one that is being written is left for later."""
        with self.spool.open("rb") as file:
            file.seek(self.sent_to)
            while (raw := file.readline()).endswith(b"\n"):
                yield Line(_document(raw), file.tell() - len(raw), file.tell())

    @property
    def refused(self) -> list[str]:
        """Why parts of the spool were refused; they are in it still."""
        return [note.get("reason", "") for note in self._notes() if note["fate"] == "refused"]

    def _notes(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for raw in self.path.read_bytes().splitlines():
            try:
                note = json.loads(raw)
                yield {**note, "end": int(note["end"]), "fate": str(note["fate"])}
            except (ValueError, LookupError, TypeError):
                continue  # cut off when its writer died: what it would have said did not happen

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _document(raw: bytes) -> dict[str, Any]:
    """Read a line; one that is none becomes a document that no receiver takes."""
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"resourceSpans": [{"unreadable": True}]}
