"""A supervised server process: start it, wait until it is ready, read its log, stop it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

SUPERVISOR = Path(__file__).with_name("supervisor.py")
STOP_LIMIT_S = 14.0  # a supervisor needs at most two grace periods of 5 s


class ServerError(RuntimeError):
    """A server did not start, died or did not stop; the message has its last log lines and a remedy."""


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """What another process needs to know to find a running server again.

    A process id alone may be reused. ``started_ticks`` is the supervisor's start [clock ticks since the
    machine booted], and ``boot_id`` names that boot: both stay what they are when the clock is set.
    """

    name: str
    command: tuple[str, ...]
    port: int
    log: str
    supervisor: int
    server: int
    started_ticks: int
    boot_id: str


def start_ticks(pid: int) -> int | None:
    """Read when a process started [clock ticks since boot]; ``None`` if it is not there any more."""
    try:
        # The program's name stands in brackets and may hold anything; after it come fields 3 to 52.
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()[19])
    except (OSError, IndexError):
        return None


def boot_id() -> str:
    """Read the id that the kernel draws each time the machine boots."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def free_port() -> int:
    """Find a TCP port that is free on 127.0.0.1, below the range that outgoing connections use."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError(
        "50 ports between 20000 and 32000 are all taken on 127.0.0.1. To fix: stop what holds them."
    )


class Server:
    """One running server under its supervisor, started by this process or found again by its record."""

    def __init__(self, record: ServerRecord, supervisor: subprocess.Popen[str] | None = None) -> None:
        """Wrap a running server; use :meth:`start` or :meth:`attach`."""
        self.record = record
        self._supervisor = supervisor

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        log: Path,
        env: Mapping[str, str] | None = None,
        shm_name: str | None = None,
    ) -> Server:
        """Start a command under a supervisor of its own.

        Args:
            name: what messages call it.
            command: program and arguments; it inherits no terminal and no standard input.
            port: where it will listen, for messages and for :meth:`attach`.
            log: file that its output is appended to.
            env: its whole environment; ``None`` is this process's.
            shm_name: shared memory with this text in its name is unlinked when the server ends.

        Raises:
            ServerError: the command cannot be executed.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        shm = ["--shm", shm_name] if shm_name else []
        supervisor = subprocess.Popen(
            [sys.executable, "-I", str(SUPERVISOR), "--log", str(log), *shm, "--", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=None if env is None else dict(env), start_new_session=True,
        )  # fmt: skip
        assert supervisor.stdout
        assert supervisor.stderr
        line = supervisor.stdout.readline()
        if not line.strip().isdigit():
            reason = supervisor.communicate()[1].strip().splitlines()[-1:]
            raise ServerError(f"{name} could not be executed: {' '.join(reason) or 'no reason given'}")
        supervisor.stdout.close()
        supervisor.stderr.close()
        # The supervisor is our child, not yet waited for: its entry is there even if it has ended.
        identity = (supervisor.pid, int(line), start_ticks(supervisor.pid) or 0, boot_id())
        return cls(ServerRecord(name, tuple(command), port, str(log), *identity), supervisor)

    @classmethod
    def attach(cls, record: ServerRecord) -> Server | None:
        """Find a kept server again; ``None`` if it is no longer that very process."""
        server = cls(record)
        return server if server.alive() else None

    @property
    def url(self) -> str:
        """The server's base address."""
        return f"http://127.0.0.1:{self.record.port}"

    def alive(self) -> bool:
        """Tell whether the supervisor, and so the server, still runs."""
        if self._supervisor is not None:
            return self._supervisor.poll() is None
        return self._process() is not None

    def _process(self) -> psutil.Process | None:
        same = (start_ticks(self.record.supervisor), boot_id()) == (
            self.record.started_ticks,
            self.record.boot_id,
        )
        try:
            process = psutil.Process(self.record.supervisor) if same else None
            return process if process and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def keep(self) -> None:
        """Let the server outlive this process; from now on only :meth:`stop` ends it."""
        if self._supervisor is not None and self._supervisor.stdin and not self._supervisor.stdin.closed:
            self._supervisor.stdin.write("keep\n")
            self._supervisor.stdin.close()
            self._supervisor.returncode = (
                0  # not ours to wait for any more; Popen would warn that it still runs
            )
            self._supervisor = None

    def stop(self) -> None:
        """End the server with everything that descends from it; returns when nothing is left.

        Raises:
            ServerError: something was still there after 14 s.
        """
        try:
            if self._supervisor is not None:
                self._supervisor.terminate()
                self._supervisor.wait(STOP_LIMIT_S)
            elif process := self._process():
                process.terminate()
                process.wait(STOP_LIMIT_S)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            raise ServerError(
                f"{self.record.name} was still there {STOP_LIMIT_S:g} s after it was told to stop.\n"
                f"To fix: kill -KILL {self.record.supervisor} {self.record.server}"
            ) from None
        except psutil.NoSuchProcess:
            pass
        finally:
            if self._supervisor is not None and self._supervisor.stdin:
                self._supervisor.stdin.close()

    def not_ready(self, waited: float) -> ServerError:
        """Build the error for a server that died, or did not answer, within ``waited`` seconds."""
        seen = f"process {self.record.server} runs but does not answer"
        if not self.alive():
            code = self._supervisor.returncode if self._supervisor else "unknown"
            seen = f"process {self.record.server} exited with code {code}"
        log = Path(self.record.log)
        shown = os.path.relpath(log) if log.is_relative_to(Path.cwd()) else str(log)
        last = "\n                 ".join(explaining_lines(log)) or "(the log is empty)"
        return ServerError(
            f"{self.record.name} was not ready after {waited:.0f} s: {seen}.\n"
            f"  last log lines {last}\n"
            f"  checked        {self.url}, {shown}\n"
            f"To fix, either:\n"
            f"  - see what is wrong here:    lmcache-tutorial doctor\n"
            f"  - give the engine more room: pytest --engine-memory-gib=4\n"
        )

    def state(self) -> dict[str, object]:
        """Return the record as plain data, for a state file or a report."""
        return asdict(self.record)


Probe = Callable[[], bool]


def wait_until_ready(
    servers: Sequence[tuple[Server, Probe]],
    *,
    timeout_s: float,
    ready: Callable[[Server, float], None],
    since: float | None = None,
) -> None:
    """Wait until every probe holds; fail at once when any of the servers dies.

    Args:
        servers: each with a probe that asks it; ``False`` means not yet.
        timeout_s: the limit for all of them together [s].
        ready: called once for each server that is ready, with the seconds it took.
        since: when they were started, by ``time.monotonic`` [s]; now, unless given.

    Raises:
        ServerError: one died, or was not ready in time.
    """
    begin = time.monotonic() if since is None else since
    pending = list(servers)
    while pending:
        waited = time.monotonic() - begin
        for server, probe in list(pending):
            if server.alive() and probe():
                ready(server, waited)
                pending.remove((server, probe))
        for server, _ in servers:
            if not server.alive() or (waited > timeout_s and server in [late for late, _ in pending]):
                raise server.not_ready(waited)
        if pending:
            time.sleep(0.25)


def explaining_lines(log: Path, count: int = 3) -> list[str]:
    """Return the log's last lines, errors first choice: what a reader needs to see [``count`` at most].

    Reads the last 64 KiB only; a server may have written gigabytes.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65_536))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    lines = [line.strip()[:300] for line in lines if line.strip()]
    errors = [line for line in lines if "Error" in line or "error:" in line]
    return (errors or lines)[-count:]
