"""A guard for one server process: ``python supervisor.py --log FILE [--shm NAME] [--folder DIR] -- COMMAND``.

Standard library only, since it is started as a script of its own. It starts the command in a session of
its own, prints the command's process id, and ends with the command's exit code. It stops the command, with
everything that descends from it, when

- its standard input ends: the run that started it is gone, however it went, or
- it gets SIGTERM: somebody asked.

A line ``keep`` on standard input makes it outlive the run; SIGTERM still stops it. At the end it unlinks the
shared memory that the command left, and nothing else: :class:`SharedMemory` says how it tells; and it removes
the folder that it made for the command's data.
Temporary files (vLLM leaves dozens of sockets) go to a folder of the command's own, which is removed too.
(PDEATHSIG would not do: it fires when the starting *thread* ends, and does not reach grandchildren.)
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

GRACE_S = 5.0  # SIGTERM to SIGKILL; vLLM needs 2 to 3 s here, LMCache 4 s
LOOK_S = 0.25
SHM = Path("/dev/shm")
PR_SET_CHILD_SUBREAPER = 36


class SharedMemory:
    """Finds the shared memory that one run made, among everything that lies in /dev/shm.

    Others keep files there too, a model folder for example, and the servers map what they read. A file counts
    as the run's only if it appeared directly under /dev/shm since the run began, belongs to this user, and

    - carries the run's name, or
    - was held by the command's processes alone when it was first seen, and mapped by them to be written and
      shared. Who makes shared memory holds it from the first moment, open or mapped; a file that another
      program writes is held by that program, then by nobody, and is mapped later or only to be read.

    A file is told by its name together with its inode, since a name may be taken again by somebody else.
    """

    def __init__(self, name: str | None) -> None:
        """Note what is there already; none of it is the run's."""
        self._name = name
        self._seen = files_of_ours()
        self._made: dict[str, int] = {}

    def look(self, child: int) -> None:
        """Decide for each file that is new since the last look whether the child's family made it."""
        new = {path: inode for path, inode in files_of_ours().items() if self._seen.get(path) != inode}
        if not new:
            return
        ours = family(child)
        theirs = set(processes()) - ours
        held_by_others = mapped(theirs) | opened(theirs)
        made = mapped(ours, writable=True) - held_by_others
        being_made = opened(ours) - mapped(ours) - held_by_others
        for path, inode in new.items():
            if path in made or self._carries_name(path):
                self._made[path] = inode
            elif path in being_made:
                continue  # opened and not yet mapped: the next look decides
            self._seen[path] = inode

    def unlink(self) -> None:
        """Remove what the run made, except what somebody else maps now and does not carry the run's name."""
        there = files_of_ours()
        in_use = mapped(set(processes()))
        for path, inode in self._made.items():
            if there.get(path) == inode and (path not in in_use or self._carries_name(path)):
                Path(path).unlink(missing_ok=True)

    def _carries_name(self, path: str) -> bool:
        return bool(self._name) and str(self._name) in Path(path).name


def files_of_ours() -> dict[str, int]:
    """Return this user's plain files directly under /dev/shm: path -> inode."""
    found = {}
    try:
        entries = list(os.scandir(SHM))
    except OSError:
        return {}
    for entry in entries:
        try:
            about = entry.stat(follow_symlinks=False)
        except OSError:  # gone meanwhile
            continue
        if stat.S_ISREG(about.st_mode) and about.st_uid == os.getuid():
            found[entry.path] = about.st_ino
    return found


def opened(pids: set[int]) -> set[str]:
    """Return the files of /dev/shm that these processes have open."""
    paths = set()
    for pid in pids:
        try:
            entries = list(os.scandir(f"/proc/{pid}/fd"))
        except OSError:
            continue
        for entry in entries:
            with suppress(OSError):  # closed meanwhile
                paths.add(os.readlink(entry.path))
    return {path for path in paths if path.startswith(f"{SHM}/")}


def mapped(pids: set[int], *, writable: bool = False) -> set[str]:
    """Return the files of /dev/shm that these processes map; ``writable``: those mapped ``rw`` and shared.

    A line of ``maps`` is, for example, ``7f24-7f25 rw-s 00000000 00:1b 61   /dev/shm/psm_1``.
    """
    paths = set()
    for pid in pids:
        try:
            maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
        except OSError:
            continue
        for line in maps.splitlines():
            if f" {SHM}/" not in line:
                continue
            _, access, _, _, _, path = line.split(maxsplit=5)
            if not writable or (access.startswith("rw") and access.endswith("s")):
                paths.add(path)
    return paths


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
        with suppress(ProcessLookupError):
            os.kill(pid, number)


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


def main() -> int:
    """Run one command under guard; return its exit code (128 + n for signal n)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--shm")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asked, wake = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(wake, b"x"))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    shm = SharedMemory(options.shm)
    if options.folder:
        options.folder.mkdir(parents=True)  # one that is there already is somebody else's: fails
    with tempfile.TemporaryDirectory(prefix="lct-", ignore_cleanup_errors=True) as scratch:
        with open(options.log, "ab") as log:
            child = subprocess.Popen(
                options.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "TMPDIR": scratch},
            )
        try:
            with suppress(BrokenPipeError):  # the run is gone already: ``watch`` finds its pipe closed
                os.write(1, f"{child.pid}\n".encode())
            watch(child, asked, shm)
            shm.look(child.pid)
        finally:  # whatever goes wrong here, the server must not outlive its guard
            stop(child)
            shm.unlink()
            if options.folder:
                shutil.rmtree(options.folder, ignore_errors=True)
    code = child.wait()
    return code if code >= 0 else 128 - code


def watch(child: subprocess.Popen[bytes], asked: int, shm: SharedMemory) -> None:
    """Wait until the child ends, the run is gone or ``asked`` is readable; look for new shared memory."""
    watched = [0, asked]
    while child.poll() is None:
        shm.look(child.pid)
        ready, _, _ = select.select(watched, [], [], LOOK_S)
        if asked in ready:
            break
        if 0 in ready:
            line = os.read(0, 64)
            if b"keep" in line:
                watched = [asked]
            elif not line:
                break


if __name__ == "__main__":
    sys.exit(main())
