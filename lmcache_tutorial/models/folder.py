"""A model folder that is made once: whole or not at all, by one run at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .model import ModelError, Progress

MANIFEST = "SHA256SUMS.json"
MODEL_DISK_BYTES = 600 * 2**20
LARGE_BYTES = 2**26  # a file of this size and more is not read whole to tell whether it changed


def once(target: Path, make: Callable[[Path], None], progress: Progress) -> Path:
    """Make a model folder unless it is there whole.

    Args:
        target: where it lies, or will lie.
        make: writes the files into an empty folder.
        progress: told when it is ready.

    Raises:
        ModelError: there is no room for it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / ".lock"):
        if is_complete(target):
            return target
        if shutil.disk_usage(target.parent).free < MODEL_DISK_BYTES:
            raise ModelError(
                f"{target.parent} has less than 600 MB free. To fix: set LMCACHE_TUTORIAL_CACHE."
            )
        shutil.rmtree(target, ignore_errors=True)
        for leftover in target.parent.glob(".converting-*"):  # cut off earlier; we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
        make(partial)
        sums = {file.name: sha256(file) for file in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps(sums, indent=1))
        partial.rename(target)
        progress(f"model: ready in {target}")
    return target


def is_complete(folder: Path) -> bool:
    """Tell whether a converted model is whole: every file has the hash that its manifest names."""
    try:
        sums = json.loads((folder / MANIFEST).read_text())
        return bool(sums) and all(sha256(folder / name) == wanted for name, wanted in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def digest(folder: Path) -> str:
    """Hash what identifies a model: the small files whole, the weights by name, size and time."""
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name != MANIFEST:
            big = file.stat().st_size > LARGE_BYTES
            stamp = f"{file.stat().st_size} {file.stat().st_mtime_ns}" if big else sha256(file)
            total.update(f"{file.name} {stamp}\n".encode())
    return total.hexdigest()[:16]


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run makes one: wait for it, which takes a limited time
        yield
