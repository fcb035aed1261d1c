"""Supervised processes, with stand-ins: no figure ever comes from one."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lmcache_tutorial.servers import process
from lmcache_tutorial.servers.ports import free_port
from lmcache_tutorial.servers.process import (
    SUPERVISOR,
    Launch,
    Server,
    ServerError,
    explaining_lines,
    start_ticks,
    wait_until_ready,
)
from lmcache_tutorial.servers.supervisor import LOOK_S

SUPERVISE = [sys.executable, "-I", str(SUPERVISOR)]

LISTEN = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    time.sleep(0.1)
"""
SLOW = "import time; time.sleep(1.5)\n" + LISTEN
DEATH = "raise ValueError('No available memory for the cache blocks')"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LISTEN
GRANDCHILD = (
    """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
"""
    + LISTEN
)
# A head that ends its own child, which writes down how often it was told.
HEAD = (
    """
import signal, subprocess, sys
CHILD = '''
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("told", file=open(sys.argv[1], "a")))
print("ready", file=open(sys.argv[1], "a"))
for _ in range(20):
    time.sleep(0.1)
'''
child = subprocess.Popen([sys.executable, "-c", CHILD, sys.argv[2]])
def end(*_):
    child.terminate(); child.wait(); sys.exit(0)
signal.signal(signal.SIGTERM, end)
"""
    + LISTEN
)
FLOOD = "print('x' * 80 + '\\n', end='')\nfor _ in range(300_000): print('noise ' * 10)\n" + LISTEN
SHARED = (
    """
import mmap, os, sys, time
for name in sys.argv[2:]:
    file = os.open("/dev/shm/" + name, os.O_CREAT | os.O_RDWR); os.ftruncate(file, 4096)
    globals()[name] = mmap.mmap(file, 4096)
"""
    + LISTEN
)
# Maps the file that it is told, shared, a second after it is there.
MAPS_LATER = (
    """
import mmap, os, sys, time
while not os.path.exists(sys.argv[2]) or not os.path.getsize(sys.argv[2]):
    time.sleep(0.01)
time.sleep(1)
file = os.open(sys.argv[2], os.O_RDWR)
kept = mmap.mmap(file, 4096, access=getattr(mmap, sys.argv[3]))
"""
    + LISTEN
)
# A run of its own: starts a stand-in, says so, and then ends as it is told.
RUN = """
import sys, time
from pathlib import Path
from lmcache_tutorial.servers.process import Launch, Server
server = Server.start("stand-in", [sys.executable, "-c", sys.argv[1], sys.argv[2]],
                      Launch(int(sys.argv[2]), Path(sys.argv[3])))
if sys.argv[4] == "keep":
    server.keep()
print(server.record.supervisor, server.record.server, flush=True)
if sys.argv[4] == "failure":
    raise RuntimeError("a test failed")
time.sleep(0 if sys.argv[4] == "keep" else 60)
"""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start(script: str, tmp_path: Path, *arguments: str, **options) -> Server:
    port = free_port()
    command = [sys.executable, "-c", script, str(port), *arguments]
    return Server.start("stand-in", command, Launch(port, tmp_path / "server.log", **options))


def wait_ready(server: Server, timeout_s: float = 20) -> list[float]:
    took: list[float] = []
    wait_until_ready(
        [(server, lambda: listens(server.record.port))],
        timeout_s=timeout_s,
        ready=lambda _, s: took.append(s),
    )
    return took


def test_the_head_of_a_family_is_told_to_end_and_its_child_once(tmp_path):
    heard = tmp_path / "heard"
    server = start(HEAD, tmp_path, str(heard))
    wait_ready(server)
    assert until(lambda: heard.exists() and "ready" in heard.read_text(), 10)
    server.stop()
    assert heard.read_text().splitlines() == ["ready", "told"]


def until(condition, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_slow_start_is_waited_for(tmp_path):
    server = start(SLOW, tmp_path)
    (took,) = wait_ready(server)
    assert took > 1
    server.stop()
    assert not listens(server.record.port)
    assert gone(server.record.server)


def test_death_at_start_is_told_at_once_with_the_last_log_line(tmp_path):
    server = start(DEATH, tmp_path)
    begin = time.monotonic()
    with pytest.raises(ServerError) as error:
        wait_ready(server, timeout_s=60)
    assert time.monotonic() - begin < 10
    assert "exited with code 1" in str(error.value)
    assert "ValueError: No available memory for the cache blocks" in str(error.value)
    assert "lmcache-tutorial doctor" in str(error.value)
    server.stop()


def test_death_of_one_ends_the_wait_for_the_other(tmp_path):
    slow, dead = start(LISTEN, tmp_path), start(DEATH, tmp_path)
    with pytest.raises(ServerError, match="exited with code 1"):
        wait_until_ready(
            [(slow, lambda: False), (dead, lambda: False)], timeout_s=60, ready=lambda server, took: None
        )
    for server in (slow, dead):
        server.stop()


def test_a_probe_that_hangs_hides_no_death(tmp_path):
    begin = time.monotonic()
    slow, dead = start(LISTEN, tmp_path), start(DEATH, tmp_path)

    def hang() -> bool:
        time.sleep(30)
        return False

    with pytest.raises(ServerError, match="exited with code 1"):
        wait_until_ready([(slow, hang), (dead, hang)], timeout_s=60, ready=lambda server, took: None)
    assert time.monotonic() - begin < 15
    for server in (slow, dead):
        server.stop()


def test_a_probe_that_hangs_past_the_limit_is_told_with_the_time_that_was_waited(tmp_path):
    server = start(LISTEN, tmp_path)
    with pytest.raises(ServerError, match=r"was not ready after 2 s: .* does not answer"):
        wait_until_ready([(server, lambda: bool(time.sleep(30)))], timeout_s=2, ready=lambda *_: None)
    server.stop()


def test_a_probe_that_fails_ends_the_wait(tmp_path):
    server = start(LISTEN, tmp_path)
    with pytest.raises(ZeroDivisionError):
        wait_until_ready([(server, lambda: bool(1 / 0))], timeout_s=60, ready=lambda *_: None)
    server.stop()


def test_after_a_restart_only_the_new_runs_lines_are_shown(tmp_path):
    first = start("raise KeyError('of the first run')", tmp_path)
    with pytest.raises(ServerError, match="of the first run"):
        wait_ready(first)
    first.stop()
    second = start("print('of the second run'); raise SystemExit(3)", tmp_path)
    with pytest.raises(ServerError) as error:
        wait_ready(second)
    second.stop()
    assert "of the second run" in str(error.value)
    assert "of the first run" not in str(error.value)


def test_the_remedy_is_the_servers_own(tmp_path):
    server = start(DEATH, tmp_path, remedies=["feed it: pytest --food=4"])
    with pytest.raises(ServerError) as error:
        wait_ready(server)
    server.stop()
    assert str(error.value).endswith("  - feed it: pytest --food=4")
    assert "--kv-engine-memory-gib" not in str(error.value)


def test_a_server_that_has_ended_cannot_be_kept(tmp_path):
    server = start(DEATH, tmp_path)
    assert until(lambda: not server.alive(), 10)
    with pytest.raises(ServerError, match="ended before it could be kept"):
        server.keep()
    server.stop()


def test_no_port_is_given_twice(monkeypatch):
    monkeypatch.setattr(random.SystemRandom, "sample", lambda self, ports, count: list(ports)[:count])
    assert len({free_port() for _ in range(5)}) == 5


def test_a_server_that_never_answers_hits_the_limit(tmp_path):
    server = start("import time; time.sleep(600)", tmp_path)
    with pytest.raises(ServerError, match="runs but does not answer"):
        wait_ready(server, timeout_s=1)
    server.stop()


def test_a_server_deaf_to_sigterm_is_killed(tmp_path):
    server = start(DEAF, tmp_path)
    wait_ready(server)
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin < 14
    assert gone(server.record.server)
    assert not listens(server.record.port)


def test_a_grandchild_in_a_session_of_its_own_ends_too(tmp_path):
    server = start(GRANDCHILD, tmp_path)
    wait_ready(server)
    (grandchild,) = psutil.Process(server.record.server).children(recursive=True)
    server.stop()
    assert until(lambda: gone(grandchild.pid), 2)


def test_a_port_that_is_taken_is_told(tmp_path):
    first = start(LISTEN, tmp_path)
    wait_ready(first)
    port = first.record.port
    command = [sys.executable, "-c", LISTEN, str(port)]
    second = Server.start("second", command, Launch(port, tmp_path / "second.log"))
    with pytest.raises(ServerError, match="Address already in use"):
        wait_until_ready([(second, lambda: False)], timeout_s=20, ready=lambda server, took: None)
    for server in (first, second):
        server.stop()


def test_a_flood_of_output_neither_blocks_nor_fills_memory(tmp_path):
    server = start(FLOOD, tmp_path)
    wait_ready(server, timeout_s=30)
    server.stop()
    assert server.record.log
    assert Path(server.record.log).stat().st_size > 10_000_000
    assert len(explaining_lines(Path(server.record.log))) == 3


def test_a_command_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(ServerError, match=r"could not be executed.*No such file"):
        Server.start("missing", ["/no/such/program"], Launch(1, tmp_path / "log"))


def test_temporary_files_are_removed(tmp_path):
    note = tmp_path / "where"
    script = "import sys, tempfile; open(sys.argv[2], 'w').write(tempfile.mkdtemp())\n" + LISTEN
    server = start(script, tmp_path, str(note))
    wait_ready(server)
    folder = Path(note.read_text())
    assert folder.is_dir()
    server.stop()
    assert not folder.parent.exists()


def test_shared_memory_is_unlinked_but_not_what_others_use(tmp_path):
    tag = f"lct-test-{os.getpid()}"
    names = [f"{tag}-mine", f"{tag}-theirs"]
    other = start(SHARED, tmp_path, names[1])
    wait_ready(other)
    server = start(SHARED, tmp_path, *names)
    wait_ready(server)
    time.sleep(LOOK_S * 2)
    server.stop()
    assert [Path("/dev/shm", name).exists() for name in names] == [False, True]
    other.stop()
    assert not Path("/dev/shm", names[1]).exists()


def test_shared_memory_that_is_slowly_made_is_unlinked(tmp_path):
    name = f"lct-test-{os.getpid()}-slow"
    server = start(SHARED.replace("os.ftruncate", "time.sleep(1); os.ftruncate"), tmp_path, name)
    wait_ready(server)
    time.sleep(LOOK_S * 2)
    server.stop()
    assert not Path("/dev/shm", name).exists()


def test_shared_memory_that_somebody_else_maps_by_now_stays(tmp_path):
    name = f"lct-test-{os.getpid()}-lent"
    server = start(SHARED, tmp_path, name)
    wait_ready(server)
    time.sleep(LOOK_S * 2)  # the supervisor has seen who made it
    other = start(SHARED, tmp_path, name)
    wait_ready(other)
    server.stop()
    there = Path("/dev/shm", name).exists()
    other.stop()
    Path("/dev/shm", name).unlink()
    assert there


def test_shared_memory_that_carries_the_runs_name_is_unlinked(tmp_path):
    tag = f"lct-test-{os.getpid()}-named"
    earlier, left_over = (Path("/dev/shm", f"{word}_{tag}") for word in ("earlier", "pool"))
    earlier.touch()
    server = start(LISTEN, tmp_path, shm_name=tag)
    wait_ready(server)
    left_over.touch()
    server.stop()
    seen = earlier.exists(), left_over.exists()
    earlier.unlink()
    assert seen == (True, False)


@pytest.fixture
def shm_folder():
    """A folder of the user's own in /dev/shm, as one keeps a model there; the test fills it."""
    folder = Path("/dev/shm", f"lct-test-{os.getpid()}-model")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_a_model_in_dev_shm_survives_the_server_that_read_it(tmp_path, shm_folder):
    weights, alone = shm_folder / "model.safetensors", Path(f"{shm_folder}.gguf")
    late = shm_folder / "late.safetensors"
    for file in (weights, alone):
        file.write_bytes(bytes(4096))
    paths = [str(path.relative_to("/dev/shm")) for path in (weights, alone, late)]
    server = start(SHARED, tmp_path, *paths)  # it makes the late one itself: in a folder, so it is nobody's
    wait_ready(server)
    time.sleep(LOOK_S * 2)
    server.stop()
    seen = [path.exists() for path in (weights, alone, late)]
    alone.unlink()
    assert seen == [True, True, True]


@pytest.mark.parametrize("access", ["ACCESS_READ", "ACCESS_WRITE"])
def test_a_file_that_another_program_wrote_meanwhile_survives(tmp_path, access):
    file = Path("/dev/shm", f"lct-test-{os.getpid()}-written-{access}")
    server = start(MAPS_LATER, tmp_path, str(file), access)
    file.write_bytes(bytes(4096))  # after the start, and closed again
    wait_ready(server)
    server.stop()
    there = file.exists()
    file.unlink()
    assert there


def test_a_name_that_somebody_else_took_meanwhile_is_theirs(tmp_path):
    file = Path("/dev/shm", f"lct-test-{os.getpid()}-taken")
    server = start(SHARED, tmp_path, file.name)
    wait_ready(server)
    time.sleep(LOOK_S * 2)
    file.unlink()
    file.write_bytes(b"another's")
    server.stop()
    there = file.exists()
    file.unlink()
    assert there


def test_a_run_that_dies_before_it_is_told_the_process_id_leaves_no_server(tmp_path):
    mark = str(tmp_path / "mark")
    reading, writing = os.pipe()
    supervisor = subprocess.Popen(
        [*SUPERVISE, "--log", mark, "--", sys.executable, "-c", "import time; time.sleep(60)", mark],
        stdin=subprocess.PIPE,
        stdout=writing,
    )
    for end in (reading, writing):
        os.close(end)
    supervisor.stdin.close()
    supervisor.wait(20)
    assert not [process for process in psutil.process_iter() if mark in cmdline(process)]


def test_an_interrupt_while_a_server_is_started_leaves_none(tmp_path, monkeypatch):
    def interrupt() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "boot_id", interrupt)
    mark = str(tmp_path / "mark")
    with pytest.raises(KeyboardInterrupt):
        start(LISTEN, tmp_path, mark)
    assert not [one for one in psutil.process_iter() if mark in cmdline(one)]


def test_a_supervisor_that_fails_leaves_no_server(tmp_path):
    script = (
        "import sys; from lmcache_tutorial.servers import supervisor\n"
        "def fail(*_): raise OSError('out of files')\n"
        "supervisor.watch = fail; supervisor.main()"
    )
    command = [sys.executable, "-c", script, "--log", str(tmp_path / "log"), "--", "sleep", "600"]
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=30)
    assert "out of files" in done.stderr
    assert gone(int(done.stdout))


def default_signals() -> None:
    """Undo what nohup, or a shell's &, did to this test run: its children would inherit it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run(tmp_path: Path, script: str, end: str) -> tuple[subprocess.Popen, int, int, int]:
    port = free_port()
    command = [sys.executable, "-c", RUN, script, str(port), str(tmp_path / "log"), end]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=default_signals
    )
    supervisor, server = map(int, process.stdout.readline().split())
    return process, port, supervisor, server


@pytest.mark.parametrize("script", [LISTEN, DEAF, GRANDCHILD], ids=["plain", "deaf", "grandchild"])
@pytest.mark.parametrize("end", ["failure", signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
def test_however_the_run_ends_nothing_is_left(tmp_path, script, end):
    process, port, supervisor, server = run(tmp_path, script, str(end))
    if end != "failure":
        until(lambda: listens(port), 10)
        process.send_signal(end)
    process.wait(10)
    process.stdout.close()
    assert until(lambda: gone(supervisor) and gone(server) and not listens(port), 15)


def test_a_kept_server_outlives_its_run_and_is_found_again(tmp_path):
    process, port, _, _ = run(tmp_path, LISTEN, "keep")
    process.wait(10)
    process.stdout.close()
    assert until(lambda: listens(port), 10)
    supervisor = next(
        p
        for p in psutil.process_iter()
        if "supervisor.py" in " ".join(cmdline(p)) and str(port) in cmdline(p)
    )
    first = start(LISTEN, tmp_path)  # a record to copy
    first.stop()
    started = start_ticks(supervisor.pid)
    assert started
    record = replace(first.record, port=port, supervisor=supervisor.pid, started_ticks=started)
    kept = Server.attach(record)
    assert kept is not None
    assert Server.attach(replace(record, started_ticks=started - 1)) is None
    assert Server.attach(replace(record, boot_id="another boot")) is None
    kept.stop()
    assert until(lambda: not listens(port), 15)
    assert Server.attach(record) is None


def test_a_kept_server_is_found_after_the_clock_was_set(tmp_path, monkeypatch):
    server = start(LISTEN, tmp_path)
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 3600)
    found = Server.attach(server.record)
    server.stop()
    assert found is not None
    assert Server.attach(server.record) is None


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
