"""What this machine has, and what a container around us leaves of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmcache_tutorial.machine import checks as machine
from lmcache_tutorial.machine.pss import pss_bytes

GIB = 2**30
MEMINFO = "MemTotal: 100 kB\nMemAvailable:   33554432 kB\n"  # 32 GiB


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Write the files of a control group; everything else has 32 GiB and no limit."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")

    def write(own: str, files: dict[str, str]) -> None:
        all_files = {"proc/self/cgroup": own, "proc/meminfo": MEMINFO}
        all_files |= {f"cgroup/{name}": text for name, text in files.items()}
        for name, text in all_files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


V1 = "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/outside/this/container\n", {"cpu.max": "200000 100000\n"}, 2),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 8),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 4),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "200000", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, 2),
        ("", {}, 8),
    ],
)
def test_cores_are_those_of_the_affinity_and_the_quota(container, monkeypatch, own, files, cores):
    container(own, files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert machine.usable_cores() == cores


def test_the_engine_gets_no_more_threads_than_there_are_usable_cores():
    one = min(os.sched_getaffinity(0))
    script = (
        f"import os; os.sched_setaffinity(0, {{{one}}})\n"
        "from lmcache_tutorial.settings.profiles import PROFILES\n"
        "print(dict(PROFILES['cpu'].stack.environment)['OMP_NUM_THREADS'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("own", "files", "available", "total"),
    [
        ("0::/\n", {"memory.max": "max", "memory.current": str(20 * GIB)}, 32, None),
        ("0::/\n", {"memory.max": str(8 * GIB), "memory.current": str(3 * GIB)}, 5, 8),
        (
            "0::/\n",
            {
                "memory.max": str(8 * GIB),
                "memory.current": str(7 * GIB),
                "memory.stat": f"anon 1\ninactive_file {3 * GIB}\nactive_file {GIB}\n",
            },
            5,
            8,
        ),
        (
            "0::/pod/me\n",
            {"pod/memory.max": str(6 * GIB), "pod/memory.current": str(2 * GIB), "pod/me/memory.max": "max"},
            4,
            6,
        ),
        (
            V1,
            {
                "memory/memory.limit_in_bytes": str(8 * GIB),
                "memory/memory.usage_in_bytes": str(7 * GIB),
                "memory/memory.stat": f"active_file 0\ntotal_inactive_file {GIB}\ntotal_active_file {GIB}\n",
            },
            3,
            8,
        ),
        (
            V1,
            {
                "memory/docker/abc/memory.limit_in_bytes": "9223372036854771712",
                "memory/docker/abc/memory.usage_in_bytes": str(7 * GIB),
            },
            32,
            None,
        ),
        ("0::/\n", {"memory.max": str(2 * GIB), "memory.current": str(3 * GIB)}, 0, 2),
    ],
)
def test_memory_is_what_the_container_leaves(container, own, files, available, total):
    container(own, files)
    machine_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    assert machine.available_memory_gib() == available
    assert machine.total_memory_gib() == pytest.approx(min(total or machine_gib, machine_gib))


@pytest.mark.parametrize(("used", "needed", "size"), [(0, 2.5, 3), (1, 2.5, 4), (2.2, 70.5, 73)])
def test_the_remedy_for_shared_memory_names_the_size_that_is_needed(
    monkeypatch, tmp_path, used, needed, size
):
    usage = shutil._ntuple_diskusage(int((used + 0.1) * GIB), int(used * GIB), int(0.1 * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    shm_gib = needed - machine.ENGINE_SHM_GIB
    check = next(
        iter(machine.resource_checks(memory_gib=0, shm_gib=shm_gib, folder=tmp_path, disk_gib=0)),
    )
    assert not check.ok
    assert f"{needed} needed" in check.seen
    assert f"size={size}G " in check.remedy
    assert f"--shm-size={size}g" in check.remedy


def test_a_machine_without_shared_memory_is_a_finding(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHM", tmp_path / "missing")
    check = next(iter(machine.resource_checks(memory_gib=0, shm_gib=1, folder=tmp_path, disk_gib=0)))
    assert (check.seen, check.ok) == ("not there", False)


@pytest.mark.parametrize("answer", ["", "No devices were found", "a, b"])
def test_an_odd_answer_about_the_gpu_is_none(monkeypatch, answer):
    done = subprocess.CompletedProcess([], 0, stdout=answer)
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: done)
    assert machine.gpu() is None


def test_it_runs_by_its_path_before_anything_is_installed(tmp_path):
    command = [sys.executable, "-S", str(Path(machine.__file__))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)


def test_memory_is_that_of_a_process_and_all_that_it_has_started():
    held = 64_000_000
    program = f"held = b'x' * {held}; print('ready', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert held < pss_bytes([process.pid]) < 4 * held
        process.stdin.write("\n")
    assert pss_bytes([process.pid, 2**22 + 1]) == 0
