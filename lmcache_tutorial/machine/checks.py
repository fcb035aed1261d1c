"""What machine is this, and can it run the stack? Standard library only: ``make setup`` runs it first.

A container has less than the machine: what it may use is read from its control groups, version 2 and 1.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
PROCESSES_GIB = 3.0  # weights, torch and two Python servers; 2.6 GiB seen on the CPU profile
ENGINE_SHM_GIB = 0.5  # vLLM's own message queues
SETUP_DISK_GIB = 6.0  # a virtual environment of 4.5 GB and the model
INSTRUCTION_SETS: Mapping[str, tuple[str, ...]] = {  # the best first; the kernel's flags that it takes
    "AMX": ("amx_bf16", "amx_tile"),
    "AVX512_BF16": ("avx512_bf16",),
    "AVX-512": ("avx512f", "avx512bw", "avx512vl"),
}
LEAST_INSTRUCTION_SET = "AVX2"  # without it the engine does not start
# What `ONEDNN_MAX_CPU_ISA` may say, and the best set that oneDNN uses then; any other word is no limit.
ONEDNN_LIMITS: Mapping[str, str] = {
    "SSE41": "AVX2",
    "AVX": "AVX2",
    "AVX2": "AVX2",
    "AVX2_VNNI": "AVX2",
    "AVX2_VNNI_2": "AVX2",
    "AVX512_CORE": "AVX-512",
    "AVX512_CORE_VNNI": "AVX-512",
    "AVX512_CORE_BF16": "AVX512_BF16",
    "AVX512_CORE_FP16": "AVX512_BF16",
    "AVX10_1_512": "AVX512_BF16",
}
PROC, CGROUPS, SHM = Path("/proc"), Path("/sys/fs/cgroup"), Path("/dev/shm")


@dataclass(frozen=True)
class Check:
    """One finding; ``remedy`` is empty where all is well."""

    name: str
    seen: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether nothing needs to be done."""
        return not self.remedy


def platform_checks() -> Iterator[Check]:
    """Check the system, the processor and the Python version."""
    system = f"{platform.system()} {platform.machine()}"
    cpuinfo = PROC / "cpuinfo"
    avx2 = system == "Linux x86_64" and " avx2 " in cpuinfo.read_text().replace("\n", " ")
    yield Check(
        "machine",
        system + (" with AVX2" if avx2 else " without AVX2"),
        "" if avx2 else "the CPU stack needs Linux on x86-64 with AVX2: use another machine",
    )
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = "" if supported else "use Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.11"
    yield Check("python", platform.python_version(), remedy)


def resource_checks(*, memory_gib: float, shm_gib: float, folder: Path, disk_gib: float) -> Iterator[Check]:
    """Check /dev/shm, available memory and the disk under a folder (which need not exist yet) [GiB].

    Args:
        memory_gib: what the caches take; the programs' own need is added.
        shm_gib: the part of it that lies in shared memory; the engine's message queues are added.
        folder: where files go.
        disk_gib: how much of them.
    """
    yield _shared_memory_check(shm_gib + ENGINE_SHM_GIB)
    needed = PROCESSES_GIB + memory_gib
    available = available_memory_gib()
    remedy = "close other programs, give the container more, or use a machine with more memory"
    yield Check(
        "memory", f"{available:.1f} GiB available, {needed:.1f} needed", "" if available >= needed else remedy
    )
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder).free / GIB
    remedy = "free some, or set LMCACHE_TUTORIAL_CACHE to a folder on a larger disk"
    yield Check(
        "disk", f"{disk:.1f} GiB free at {folder}, {disk_gib:.1f} needed", "" if disk >= disk_gib else remedy
    )


def _shared_memory_check(needed_gib: float) -> Check:
    """Check that /dev/shm has room; the remedy names the size that fits beside what lies there already."""
    try:
        usage = shutil.disk_usage(SHM)
    except OSError:
        return Check("/dev/shm", "not there", f"as root: mkdir -p {SHM} && mount -t tmpfs tmpfs {SHM}")
    seen = f"{usage.free / GIB:.1f} GiB free, {needed_gib:.1f} needed"
    size = math.ceil(usage.used / GIB + needed_gib)
    remedy = f"as root: mount -o remount,size={size}G {SHM} (in a container: docker run --shm-size={size}g)"
    return Check("/dev/shm", seen, "" if usage.free >= needed_gib * GIB else remedy)


def gpu() -> str | None:
    """Ask ``nvidia-smi`` for the first GPU: its name, memory and driver; ``None`` without one."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    fields = [part.strip() for part in done.stdout.partition("\n")[0].split(",")]
    if len(fields) != 3:
        return None
    name, memory, driver = fields
    return f"{name} ({memory}, driver {driver})"


def processor() -> str:
    """Read the processor's name."""
    for line in (PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def processor_flags() -> frozenset[str]:
    """Read what the kernel says that this processor can do."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def best_instruction_set(flags: frozenset[str]) -> str:
    """Name the best instruction set for matrix work among a processor's flags.

    >>> best_instruction_set(frozenset({"avx2", "avx512f", "avx512bw", "avx512vl"}))
    'AVX-512'
    """
    return next(
        (name for name, needed in INSTRUCTION_SETS.items() if flags.issuperset(needed)), LEAST_INSTRUCTION_SET
    )


def instruction_set(flags: frozenset[str], onednn_limit: str = "") -> str:
    """Name the best instruction set that the engine's matrix library uses here.

    Args:
        flags: the processor's, see :func:`processor_flags`.
        onednn_limit: the value of ``ONEDNN_MAX_CPU_ISA``; empty without one.

    Returns:
        ``AMX``, ``AVX512_BF16``, ``AVX-512`` or ``AVX2``.

    >>> flags = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_bf16", "amx_bf16", "amx_tile"})
    >>> instruction_set(flags), instruction_set(flags, "AVX512_CORE")
    ('AMX', 'AVX-512')
    """
    order = [*INSTRUCTION_SETS, LEAST_INSTRUCTION_SET]
    limit = ONEDNN_LIMITS.get(onednn_limit.upper(), order[0])
    return max(best_instruction_set(flags), limit, key=order.index)


def instruction_set_here() -> str:
    """Name the instruction set of this machine and this environment."""
    return instruction_set(processor_flags(), os.environ.get("ONEDNN_MAX_CPU_ISA", ""))


def usable_cores() -> int:
    """Count the cores that this process may keep busy: by its affinity and by its container's quota.

    Of a quota of 1.5 cores one is usable: two threads would be stopped for a quarter of the time.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_cpu_quotas()])))


def total_memory_gib() -> float:
    """Read the memory of this machine, or of the container around us where that is less [GiB]."""
    limits = [limit for limit, _ in _memory_limits()]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits]) / GIB


def available_memory_gib() -> float:
    """Read what is available without swapping, to this machine and to the container around us [GiB]."""
    available = _field(PROC / "meminfo", "MemAvailable:") * 1024
    for limit, used in _memory_limits():
        available = min(available, limit - used)
    return max(0, available) / GIB


def _control_groups(controller: str) -> Iterator[Path]:
    """Find the folders of this process's control group and of those around it: each may set a limit.

    A container may see its own group as the root, while the path names where it lies outside: folders that
    are not there are left out.
    """
    for line in _lines(PROC / "self" / "cgroup"):
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        # Version 2 has one tree and no names; version 1 a tree for each controller, or for two together.
        root = next((CGROUPS / name for name in (names, controller) if (CGROUPS / name).is_dir()), CGROUPS)
        folder = root / path.lstrip("/")
        yield from (one for one in (folder, *folder.parents) if one.is_relative_to(root) and one.is_dir())


def _cpu_quotas() -> Iterator[float]:
    """Read how many cores each control group around this process may use, where one is limited."""
    for group in _control_groups("cpu"):
        version_1 = [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
        quota = _words(group / "cpu.max") or version_1
        if len(quota) == 2 and quota[0].isdigit() and int(quota[1]):  # no limit is "max", or -1
            yield int(quota[0]) / int(quota[1])


def _memory_limits() -> Iterator[tuple[int, int]]:
    """Read the limit of each control group around this process, and what it holds that cannot be dropped."""
    for group in _control_groups("memory"):
        limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if limit and used and limit[0].isdigit():
            # Version 1 counts the groups inside under names of their own.
            inside = "total_" if (group / "memory.usage_in_bytes").exists() else ""
            files = [_field(group / "memory.stat", f"{inside}{age}_file") for age in ("active", "inactive")]
            yield int(limit[0]), int(used[0]) - sum(files)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _field(path: Path, name: str) -> int:
    """Read the number after a name at the start of a line; 0 where it does not stand."""
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[:1] == [name]), 0)


def main() -> int:
    """Print one sentence for the first thing that does not fit; 0 if everything does."""
    for check in platform_checks():
        if not check.ok:
            print(f"set-up stopped: {check.name} is {check.seen}; {check.remedy}.", file=sys.stderr)
            return 1
    for check in resource_checks(memory_gib=3, shm_gib=2, folder=Path.cwd(), disk_gib=SETUP_DISK_GIB):
        if not check.ok:
            print(f"set-up stopped: too little {check.name}: {check.seen}; {check.remedy}.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
