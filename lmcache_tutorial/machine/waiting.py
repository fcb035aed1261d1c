"""How long threads stood ready to run and had no processor, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from glob import glob
from os import sysconf
from pathlib import Path

PROC = Path("/proc")
STEAL_FIELD = 8  # of a line of /proc/stat, behind its name: user nice system idle iowait irq softirq steal


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the kernel has counted until now.

    ``threads``: the file of each thread -> its wait [ns]; empty where this kernel does not count it.
    ``stolen_s``: what the host of a virtual machine gave to others, the mean of the processors [s].
    """

    threads: Mapping[str, int]
    stolen_s: float


def read_waiting(pids: Iterable[int]) -> Waiting:
    """Read the count for each thread of some processes; it takes about 30 µs a thread.

    The source is the second field of ``/proc/PID/task/TID/schedstat``. A thread that has ended is not there.
    """
    threads = {}
    for pid in pids:
        for file in glob(f"{PROC}/{pid}/task/*/schedstat"):
            with suppress(OSError):  # the thread ended meanwhile
                threads[file] = int(Path(file).read_text().split()[1])
    return Waiting(threads, stolen_s((PROC / "stat").read_text()))


def stolen_s(stat: str) -> float:
    """Read from the text of ``/proc/stat`` what the host took since the boot, the mean of the processors [s].

    A thread that never rests loses about as much as the mean; the sum would count what others lost.
    """
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    ticks = [int(fields[STEAL_FIELD]) for fields in lines if fields[0] != "cpu"]  # that line is their sum
    return sum(ticks) / len(ticks) / sysconf("SC_CLK_TCK")


def waited_s(before: Waiting, after: Waiting) -> float | None:
    """Compute how long threads waited between two readings, and what was stolen meanwhile [s].

    The waits of several threads are added, also where they waited at once, so it is the most that a request
    which passes through them can have lost. A thread that began in between counts whole.

    Returns:
        The sum; ``None`` where the kernel does not count it.

    >>> waited_s(Waiting({"1": 5_000_000}, 0.0), Waiting({"1": 9_000_000, "2": 1_000_000}, 0.0))
    0.005
    """
    if not after.threads:
        return None
    waited_ns = sum(max(0, now - before.threads.get(file, 0)) for file, now in after.threads.items())
    return waited_ns / 1e9 + max(0, after.stolen_s - before.stolen_s)
