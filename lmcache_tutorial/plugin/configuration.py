"""pytest's options -> the configuration of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ..settings.errors import ConfigError
from ..settings.paths import user_path
from ..settings.run import RunConfig, run_config

CONFIG = pytest.StashKey[RunConfig]()


def run_configuration(config: pytest.Config) -> RunConfig:
    """Return the run's configuration; the first call decides whether ``auto`` takes a GPU.

    Raises:
        pytest.UsageError: a setting cannot work on this machine.
    """
    if CONFIG not in config.stash:
        config.stash[CONFIG] = usage_errors(partial(read_options, config))
    return config.stash[CONFIG]


def usage_errors(make: Callable[[], RunConfig]) -> RunConfig:
    """Make a configuration; what is wrong with it is a usage error of pytest's, exit code 4."""
    try:
        return make()
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def read_options(config: pytest.Config, **others: Any) -> RunConfig:
    """Read pytest's options into a configuration; ``others`` come first."""

    def bar(name: str) -> float:
        given = config.getoption(f"--{name.replace('_', '-')}")
        try:
            return float(config.getini(name) if given is None else given)
        except ValueError:
            raise ConfigError(
                f"{name} in the ini file is {config.getini(name)!r}, but must be a number."
            ) from None

    given: dict[str, Any] = dict(
        stack=config.getoption("--stack"),
        model=config.getoption("--model"),
        dtype=config.getoption("--dtype"),
        chunk_tokens=config.getoption("--chunk-tokens"),
        engine_memory_gib=config.getoption("--engine-memory-gib"),
        lmcache_memory_gib=config.getoption("--lmcache-memory-gib"),
        gpu_memory_share=config.getoption("--gpu-memory-share"),
        min_hit_rate=bar("min_hit_rate"),
        min_ttft_drop=bar("min_ttft_drop"),
        report_dir=config.rootpath / user_path("--report-dir", config.getoption("--report-dir")),
        keep_stack=config.getoption("--keep-stack"),
        allow_slow_lmcache=config.getoption("--allow-slow-lmcache"),
        peers=config.getoption("--peers"),
    )
    return run_config(**(given | others))
