"""What processes take of memory: Linux's PSS, in which a page that several share counts once."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil


def pss_bytes(roots: Iterable[int]) -> int:
    """Sum the PSS of processes and of all that they have started [bytes].

    One that has ended, or may not be looked into, counts nothing.

    Args:
        roots: process ids.
    """
    found: set[int] = set()
    for root in roots:
        with suppress(psutil.Error):
            process = psutil.Process(root)
            found |= {root, *(child.pid for child in process.children(recursive=True))}
    return sum(map(_pss, found))


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
