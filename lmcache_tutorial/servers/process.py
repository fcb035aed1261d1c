"""A supervised server process: start it, wait until it is ready, read its log, stop it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

SUPERVISOR = Path(__file__).with_name("supervisor.py")
STOP_LIMIT_S = 14.0  # a supervisor needs at most two grace periods of 5 s
PROBE_EVERY_S = 0.25
PATH = re.compile(r'(?<![^"])/[^"]+')  # of a word, or of a text in JSON, from its first character on


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


def is_supervisor(pid: int) -> bool:
    """Tell whether a process is a supervisor of this suite, of whatever version."""
    try:
        return any(word.endswith(f"/{SUPERVISOR.name}") for word in psutil.Process(pid).cmdline())
    except (psutil.Error, ValueError):
        return False


def boot_id() -> str:
    """Read the id that the kernel draws each time the machine boots."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Launch:
    """What a server is started with, besides its command.

    Attributes:
        port: where it will listen, for messages and for :meth:`Server.attach`.
        log: file that its output is appended to.
        env: its whole environment; ``None`` is this process's.
        shm_name: shared memory with this text in its name is unlinked when the server ends.
        folder: made for the server's data, and removed when the server ends; it must not exist.
        remedies: what to try if it does not become ready, each ``why: command``.
    """

    port: int
    log: Path
    env: Mapping[str, str] | None = None
    shm_name: str | None = None
    folder: Path | None = None
    remedies: tuple[str, ...] = ()


class Server:
    """One running server under its supervisor, started by this process or found again by its record."""

    def __init__(
        self,
        record: ServerRecord,
        supervisor: subprocess.Popen[str] | None = None,
        *,
        log_start: int = 0,
        remedies: Sequence[str] = (),
    ) -> None:
        """Wrap a running server; use :meth:`start` or :meth:`attach`."""
        self.record = record
        self._supervisor = supervisor
        self._log_start = log_start
        self._remedies = tuple(remedies)

    @classmethod
    def start(cls, name: str, command: Sequence[str], launch: Launch) -> Server:
        """Start a command under a supervisor of its own.

        Args:
            name: what messages call it.
            command: program and arguments; it inherits no terminal and no standard input.
            launch: its port, log and environment.

        Raises:
            ServerError: the command cannot be executed.
        """
        log = launch.log
        log.parent.mkdir(parents=True, exist_ok=True)
        log_start = log.stat().st_size if log.exists() else 0
        left = ["--shm", launch.shm_name] if launch.shm_name else []
        left += ["--folder", str(launch.folder)] if launch.folder else []
        supervisor = subprocess.Popen(
            [sys.executable, "-I", str(SUPERVISOR), "--log", str(log), *left, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=None if launch.env is None else dict(launch.env),
            start_new_session=True,
        )
        assert supervisor.stdin
        assert supervisor.stdout
        assert supervisor.stderr
        try:
            line = supervisor.stdout.readline()
            if not line.strip().isdigit():
                reason = supervisor.communicate()[1].strip().splitlines()[-1:]
                raise ServerError(
                    f"{name} could not be executed: {' '.join(reason) or 'no reason given'}\n"
                    f"  checked  {command[0]}\n"
                    f"To fix: lmcache-tutorial doctor"
                )
            # The supervisor is our child, not yet waited for: its entry is there even if it has ended.
            identity = (supervisor.pid, int(line), start_ticks(supervisor.pid) or 0, boot_id())
        except BaseException:  # an interrupt comes here too: the end of its input has the supervisor stop all
            supervisor.stdin.close()
            supervisor.wait(STOP_LIMIT_S)
            raise
        finally:
            supervisor.stdout.close()
            supervisor.stderr.close()
        record = ServerRecord(name, tuple(command), launch.port, str(log), *identity)
        return cls(record, supervisor, log_start=log_start, remedies=launch.remedies)

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
        """Let the server outlive this process; from now on only :meth:`stop` ends it.

        Raises:
            ServerError: it has ended already.
        """
        if self._supervisor is not None and self._supervisor.stdin and not self._supervisor.stdin.closed:
            try:
                with self._supervisor.stdin as pipe:
                    pipe.write("keep\n")
            except BrokenPipeError:
                raise ServerError(
                    f"{self.record.name} ended before it could be kept.\n"
                    f"  checked  {self.record.log}\n"
                    f"To fix: lmcache-tutorial doctor"
                ) from None
            # Not ours to wait for any more; Popen would warn that it still runs.
            self._supervisor.returncode = 0
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
        """Build the error for a server that died, or did not answer, within ``waited`` seconds.

        Of its log only what it wrote since it was started is shown: a restart appends to the same file.
        """
        seen = f"process {self.record.server} runs but does not answer"
        if not self.alive():
            code = self._supervisor.returncode if self._supervisor else "unknown"
            seen = f"process {self.record.server} exited with code {code}"
        log = Path(self.record.log)
        shown = os.path.relpath(log) if log.is_relative_to(Path.cwd()) else str(log)
        last = "\n                 ".join(explaining_lines(log, start=self._log_start))
        remedies = "".join(
            f"\n  - {one}" for one in ("see what is wrong here: lmcache-tutorial doctor", *self._remedies)
        )
        return ServerError(
            f"{self.record.name} was not ready after {waited:.0f} s: {seen}.\n"
            f"  last log lines {last or '(it wrote nothing)'}\n"
            f"  checked        {self.url}, {shown}\n"
            f"To fix, either:{remedies}"
        )

    def state(self) -> dict[str, object]:
        """Return the record as plain data, for a state file or a report."""
        return asdict(self.record)


Probe = Callable[[], bool]


class Asking(threading.Thread):
    """Asks one server again and again until it answers, in a thread of its own.

    A probe may hang for as long as its HTTP client allows. Meanwhile the others are asked all the same, and
    the death of any server is seen at once.
    """

    def __init__(self, server: Server, probe: Probe) -> None:
        """Begin to ask."""
        super().__init__(daemon=True, name=f"asking {server.record.name}")
        self.server = server
        self._answered = False
        self._error: BaseException | None = None
        self._probe, self._given_up = probe, threading.Event()
        self.start()

    def run(self) -> None:
        """Ask until there is an answer, a probe fails, or nobody waits any more."""
        try:
            while not self._given_up.is_set():
                if self._probe():
                    self._answered = True
                    return
                self._given_up.wait(PROBE_EVERY_S)
        except BaseException as error:  # kept for where the waiting is done
            self._error = error

    def has_answered(self) -> bool:
        """Tell whether there was an answer; raise what the probe raised."""
        if self._error:
            raise self._error
        return self._answered

    def give_up(self) -> None:
        """Ask no more; a probe that hangs is left to end by itself."""
        self._given_up.set()


def wait_until_ready(
    servers: Sequence[tuple[Server, Probe]],
    *,
    timeout_s: float,
    ready: Callable[[Server, float], None],
    since: float | None = None,
) -> None:
    """Wait until every probe holds; fail at once when any of the servers dies.

    Args:
        servers: each with a probe that asks it; ``False`` means not yet. It is called from another thread.
        timeout_s: the limit for all of them together [s].
        ready: called once for each server that is ready, with the seconds it took.
        since: when they were started, by ``time.monotonic`` [s]; now, unless given.

    Raises:
        ServerError: one died, or was not ready in time.
    """
    begin = time.monotonic() if since is None else since
    everyone = [Asking(server, probe) for server, probe in servers]
    pending = list(everyone)
    try:
        while pending:
            waited = time.monotonic() - begin
            for asking in everyone:
                if not asking.server.alive():
                    raise asking.server.not_ready(waited)
            for asking in [one for one in pending if one.has_answered()]:
                ready(asking.server, waited)
                pending.remove(asking)
            if pending and waited > timeout_s:
                raise pending[0].server.not_ready(waited)
            time.sleep(0.05 if pending else 0)
    finally:
        for asking in everyone:
            asking.give_up()


def explaining_lines(log: Path, count: int = 3, *, start: int = 0) -> list[str]:
    """Return the log's last lines, errors first choice: what a reader needs to see [``count`` at most].

    Reads the last 64 KiB only, since a server may have written gigabytes, and nothing before ``start``
    [bytes]; a log that is shorter than that was made anew.
    """
    try:
        with log.open("rb") as file:
            size = log.stat().st_size
            file.seek(max(start if start <= size else 0, size - 65_536))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    lines = [line.strip()[:300] for line in lines if line.strip()]
    errors = [line for line in lines if "Error" in line or "error:" in line]
    return (errors or lines)[-count:]


def shown(command: Sequence[str]) -> list[str]:
    """Shorten paths to names: a report is shared, and where things lie here is nobody's business.

    >>> shown(["/home/me/.venv/bin/python", "-m", "vllm", "--port", "8001"])
    ['python', '-m', 'vllm', '--port', '8001']
    >>> shown(["--l2-adapter", '{"type": "fs", "base_path": "/home/me/.cache/files"}'])
    ['--l2-adapter', '{"type": "fs", "base_path": "files"}']
    """
    return [PATH.sub(lambda found: Path(found[0]).name, word) for word in command]
