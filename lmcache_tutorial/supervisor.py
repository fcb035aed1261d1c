"""A guard for one server process: ``python supervisor.py --log FILE [--shm NAME] -- COMMAND…``.

Standard library only, since it is started as a script of its own. It starts the command in a session of
its own, prints the command's process id, and ends with the command's exit code. It stops the command, with
everything that descends from it, when

- its standard input ends: the run that started it is gone, however it went, or
- it gets SIGTERM: somebody asked.

A line ``keep`` on standard input makes it outlive the run; SIGTERM still stops it. At the end it unlinks the
shared memory that the command left: what only the command's processes had mapped, and what carries NAME.
Temporary files (vLLM leaves dozens of sockets) go to a folder of the command's own, which is removed too.
(PDEATHSIG would not do: it fires when the starting *thread* ends, and does not reach grandchildren.)
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRACE_S = 5.0  # SIGTERM to SIGKILL; vLLM needs 2 to 3 s here, LMCache 4 s
SHM_SCAN_S = 5.0
SHM = Path("/dev/shm")
PR_SET_CHILD_SUBREAPER = 36


def shared_memory(pids: set[int]) -> set[str]:
    """Return the files of /dev/shm that these processes have mapped."""
    names = set()
    for pid in pids:
        try:
            maps = Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            continue
        for line in maps.splitlines():
            path = line.split(maxsplit=5)[5:]
            if path and path[0].startswith("/dev/shm/"):
                names.add(path[0].removesuffix(" (deleted)"))
    return names


def processes() -> dict[int, tuple[int, int]]:
    """Return every process that is no zombie: pid -> (parent, session)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent, _, session = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
            except (OSError, ValueError):
                continue
            if state != "Z":
                found[int(entry.name)] = (int(parent), int(session))
    return found


def family(child: int) -> set[int]:
    """Return the living processes of the child's session, and whatever descends from this supervisor."""
    table = processes()
    members = {pid for pid, (_, session) in table.items() if session == child}
    ours = {os.getpid()}
    while grown := {pid for pid, (parent, _) in table.items() if parent in ours} - ours:
        ours |= grown
    return (members | ours) - {os.getpid()}


def signal_all(pids: set[int], number: int) -> None:
    """Signal each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def reap() -> None:
    """Collect the exit status of adopted grandchildren that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def stop(child: subprocess.Popen[bytes]) -> None:
    """End the whole family: SIGTERM to its head, then to what that leaves behind, then SIGKILL to all.

    The head comes first and alone: vLLM's ends its engine process itself, and an engine that is told twice
    breaks off before LMCache has let go of its memory.
    """
    told = {child.pid} if child.poll() is None else set()
    signal_all(told, signal.SIGTERM)
    for number, limit_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            headless = child.poll() is not None
            if headless:
                reap()
            if not (left := family(child.pid)):
                return
            if number == signal.SIGKILL:
                signal_all(left, number)
            elif headless:
                signal_all(left - told, number)
                told |= left
            time.sleep(0.05)


def unlink(names: set[str], shm_name: str | None) -> None:
    """Remove shared memory that nobody maps any more, and everything that carries ``shm_name``."""
    in_use = shared_memory(set(processes()))
    ours = {str(path) for path in SHM.iterdir() if shm_name and shm_name in path.name}
    for name in (names - in_use) | ours:
        Path(name).unlink(missing_ok=True)


def main() -> int:
    """Run one command under guard; return its exit code (128 + n for signal n)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--shm")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asked, wake = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(wake, b"x"))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with tempfile.TemporaryDirectory(prefix="lct-", ignore_cleanup_errors=True) as scratch:
        with open(options.log, "ab") as log:
            child = subprocess.Popen(
                options.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "TMPDIR": scratch},
            )  # fmt: skip
        print(child.pid, flush=True)
        names = watch(child, asked)
        stop(child)
    unlink(names, options.shm)
    code = child.wait()
    return code if code >= 0 else 128 - code


def watch(child: subprocess.Popen[bytes], asked: int) -> set[str]:
    """Wait until the child ends, the run is gone or ``asked`` is readable; return its shared memory."""
    names: set[str] = set()
    watched, next_scan = [0, asked], 0.0
    while child.poll() is None:
        if time.monotonic() >= next_scan:
            names |= shared_memory(family(child.pid))
            next_scan = time.monotonic() + SHM_SCAN_S
        ready, _, _ = select.select(watched, [], [], 0.25)
        if asked in ready:
            break
        if 0 in ready:
            line = os.read(0, 64)
            if b"keep" in line:
                watched = [asked]
            elif not line:
                break
    return names | shared_memory(family(child.pid))


if __name__ == "__main__":
    sys.exit(main())
