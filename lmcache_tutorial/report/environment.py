"""What a run's document says of the machine, the packages and the work."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ..machine.checks import gpu, instruction_set_here, processor, usable_cores
from ..models.shapes import SHAPES
from ..settings.environment import machine_memory_gib
from ..settings.packages import ENGINES, PACKAGES
from ..settings.run import RunConfig
from ..settings.workload import Workload

OPTIONAL = ("fastokens",)
PACKAGE = Path(__file__).parents[1]
LESSONS = ("tutorial_tests", "fixtures")  # they lie beside the package in a clone, and nowhere else
SOURCES = (".py", ".jinja", ".html", ".json")


def environment(run: RunConfig) -> dict[str, Any]:
    """Describe the machine and the packages; the stack's part follows when it runs."""
    packages = {}
    for name in (ENGINES[run.stack.profile], *PACKAGES):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    device = f"{gpu()}; " if run.stack.profile == "gpu" else ""
    if run.stack.gpus > 1:
        device = f"{run.stack.gpus} × {device}"
    for name in OPTIONAL:  # one that lies on PYTHONPATH has no version
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    memory = machine_memory_gib()
    return {
        "hardware": f"{device}{processor()}, {usable_cores()} cores, {memory:.0f} GiB",
        "python": platform.python_version(),
        "code": code_digest(),
        "packages": packages,
        "model": Path(run.stack.model).name if Path(run.stack.model).is_dir() else run.stack.model,
        "weights": "random" if run.stack.model in SHAPES else "real",
        "profile": run.stack.profile,
        "instruction_set": instruction_set_here(),
        "cores": usable_cores(),
        "dtype": run.stack.dtype,
        "prefill_tokens_s": None,
        "stack": {},
        **({"tensor_parallel": spread} if (spread := run.stack.tensor_parallel) > 1 else {}),
    }


def client_environment() -> dict[str, Any]:
    """Describe what asks, where nothing of ours serves: the deployments tell of themselves."""
    return {
        "hardware": f"asked from {processor()}, {usable_cores()} cores",
        "python": platform.python_version(),
        "code": code_digest(),
        "packages": {name: metadata.version(name) for name in ("lmcache-tutorial", "pytest", "httpx")},
        "model": "unknown",
        "weights": "unknown",
        "profile": "deployment",
        "stack": {},
    }


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Hash the suite's own sources, the lessons and fixtures of a clone among them, but not its tests.

    Two runs of equal digest were made by the same code, whether or not it was committed.
    """
    files = [path for path in PACKAGE.rglob("*") if path.suffix in SOURCES]
    files = [path for path in files if path.relative_to(PACKAGE).parts[0] != "tests"]
    if (PACKAGE.parent / LESSONS[0]).is_dir():
        files += [path for folder in LESSONS for path in (PACKAGE.parent / folder).glob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE.parent)} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def workload_document(workload: Workload, dtype: str) -> dict[str, Any]:
    """Tell the sizes of a stack's documents and why they were chosen.

    ``dtype`` says the same of the number format; it is empty where that is not known.
    """
    sizes = workload.sizes
    return {
        "class": f"{sizes.long:,} tokens",
        "short": sizes.short,
        "medium": sizes.medium,
        "long": sizes.long,
        "reason": "; ".join(filter(None, [workload.reason, dtype])),
    }
