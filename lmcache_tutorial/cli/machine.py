"""``doctor`` and ``prepare``: is this machine ready, and is the model?"""

from __future__ import annotations

import typer

from ..models.prepare import prepare as prepare_model
from ..settings.options import RunOptions
from ..settings.run import run_config
from ..stack.needs import examine
from .parameters import with_options
from .printing import line


@with_options("doctor")
def doctor(options: RunOptions) -> None:
    """Check this machine, the packages, ports, memory, disk and the model; say what to do."""
    checks = examine(run_config(options).stack)
    for check in checks:
        line(f"{'ok ' if check.ok else 'BAD'} {check.name:<17} {check.seen}")
        if not check.ok:
            line(f"    to fix: {check.remedy}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@with_options("prepare")
def prepare(options: RunOptions) -> None:
    """Make the model ready, as the first run would do."""
    ready = prepare_model(run_config(options).stack.model, line)
    line(f"model: {ready.folder}")
