"""pytest's options -> the configuration of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ..settings.errors import ConfigError
from ..settings.options import check_choices
from ..settings.run import RunConfig, run_config
from .options import given_options, spelling
from .stash import CONFIG


def run_configuration(config: pytest.Config) -> RunConfig:
    """Return the run's configuration; the first call decides whether ``auto`` takes a GPU.

    Raises:
        pytest.UsageError: a setting cannot work on this machine.
    """
    if CONFIG not in config.stash:
        with usage_errors(config):
            config.stash[CONFIG] = run_config(given_options(config))
    return config.stash[CONFIG]


def check_options(config: pytest.Config) -> None:
    """Check every value; nothing has been started.

    The device is not asked yet: this may be a run of another project, whose tests fork after CUDA is set up.
    So the options are believed, and those that depend on the device are checked once more when it was asked.

    Raises:
        pytest.UsageError: a value cannot work.
    """
    with usage_errors(config):
        options = given_options(config)
        check_choices(options)
        believed = options
        if options.stack == "auto":
            believed = replace(options, peers=None, dtype="auto", tensor_parallel=None)
        run_config(believed, has_gpu=lambda: options.stack == "gpu")


@contextmanager
def usage_errors(config: pytest.Config) -> Iterator[None]:
    """Turn what is wrong with an option into a usage error of pytest's: exit code 4, in the asker's words."""
    try:
        yield
    except ConfigError as error:
        raise pytest.UsageError(error.words(spelling(config))) from None
