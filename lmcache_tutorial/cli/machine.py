"""``doctor`` and ``prepare``: is this machine ready, and is the model?"""

from __future__ import annotations

import typer

from ..models.prepare import prepare as prepare_model
from ..models.shapes import SHAPES
from ..settings.options import RunOptions
from ..settings.packages import SERVERS, missing_servers, need_servers
from ..settings.profiles import DEFAULT_MODEL
from ..settings.run import run_config
from ..stack.needs import examine
from .parameters import with_options
from .printing import line


@with_options("doctor")
def doctor(options: RunOptions) -> None:
    """Check this machine, the packages, ports, memory, disk and the model; say what to do."""
    config = run_config(options).stack
    if len(missing_servers()) == len(SERVERS):  # a base install: six bad packages would say less
        need_servers(config.profile, "lmcache-tutorial doctor")
    checks = examine(config)
    for check in checks:
        line(f"{'ok ' if check.ok else 'BAD'} {check.name:<17} {check.seen}")
        if not check.ok:
            line(f"    to fix: {check.remedy}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@with_options("prepare")
def prepare(options: RunOptions) -> None:
    """Make the model ready, as the first run would do."""
    config = run_config(options).stack
    if config.model in (DEFAULT_MODEL, *SHAPES):  # these are made with what servers bring; others are not
        need_servers(config.profile, "lmcache-tutorial prepare")
    ready = prepare_model(config.model, line)
    line(f"model: {ready.folder}")
