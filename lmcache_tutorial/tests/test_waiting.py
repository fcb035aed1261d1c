"""How long threads waited for a processor: what is read, what is added, and that the kernel counts it."""

import os
import subprocess
import sys

import pytest

from lmcache_tutorial.machine import waiting
from lmcache_tutorial.machine.waiting import Waiting, read_waiting, stolen_s, waited_s

STAT = """\
cpu  1648744 55724 238203 845789 4093 0 1496 600 0 0
cpu0 824372 27862 119101 422894 2046 0 748 500 0 0
cpu1 824372 27862 119102 422895 2047 0 748 100 0 0
intr 1 2 3
"""
THREADS = 3
# While one thread works on the only processor the others wait for it: together at least as long as all work,
# and twice that if they take turns. Hashing lets go of the interpreter's lock: nobody waits for that.
COMPETING = f"""
import hashlib, os, threading, time
from lmcache_tutorial.machine.waiting import read_waiting, waited_s

text = bytes(2**20)
begin, end, close = (threading.Barrier({THREADS} + 1) for _ in range(3))

def work():
    begin.wait()
    while time.thread_time() < 0.1:
        hashlib.sha256(text)
    end.wait()
    close.wait()

os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
for _ in range({THREADS}):
    threading.Thread(target=work).start()
before, worked = read_waiting([os.getpid()]), time.process_time()
begin.wait()
end.wait()
print(waited_s(before, read_waiting([os.getpid()])) / (time.process_time() - worked))
close.wait()
"""


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """Write the threads of processes in place of the kernel: process, thread -> the text of its file."""
    monkeypatch.setattr(waiting, "PROC", tmp_path)
    (tmp_path / "stat").write_text(STAT)

    def write(threads: dict[tuple[int, int], str]) -> None:
        for (pid, tid), text in threads.items():
            folder = tmp_path / str(pid) / "task" / str(tid)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "schedstat").write_text(text)

    return write


def test_the_second_field_of_each_thread_of_the_named_processes_is_read(proc):
    proc({(7, 7): "900 5000 3\n", (7, 8): "100 250 1\n", (9, 9): "1 1000000 1\n", (5, 5): "1 40 1\n"})
    assert sorted(read_waiting([5, 7]).threads.values()) == [40, 250, 5000]


def test_a_process_that_is_gone_has_no_threads(proc):
    assert read_waiting([4711]).threads == {}


def test_what_was_stolen_is_the_mean_of_the_processors(proc):
    assert stolen_s(STAT) == 300 / os.sysconf("SC_CLK_TCK")
    assert read_waiting([]).stolen_s == stolen_s(STAT)


def test_waits_are_added_and_those_of_an_ended_thread_are_not():
    before = Waiting({"stays": 10_000_000, "ends": 90_000_000, "number taken again": 70_000_000}, 1.0)
    after = Waiting({"stays": 30_000_000, "new": 5_000_000, "number taken again": 1_000_000}, 1.5)
    assert waited_s(before, after) == pytest.approx(0.025 + 0.5)


def test_where_the_kernel_does_not_count_nothing_was_measured():
    assert waited_s(Waiting({}, 0.0), Waiting({}, 1.0)) is None


def test_threads_that_compete_for_one_processor_wait():
    done = subprocess.run([sys.executable, "-c", COMPETING], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0.5
