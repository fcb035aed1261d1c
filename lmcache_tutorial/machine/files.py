"""Write a file so that a reader finds the old text or the new one, never a part."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a text beside its place, then put it there in one step.

    The name of the half-written file carries this process's id and the whole name of its place: two runs, and
    ``peers.json`` and ``peers.html`` of one run, do not take each other's. A link stays a link.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    path = path.resolve()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
