"""A stack that is started now: what it needs is checked first, and what its servers state afterwards."""

from __future__ import annotations

from pathlib import Path

from ..models.model import Model
from ..settings.topology import StackConfig
from .kept_state import StackError
from .needs import resources
from .stack import Progress, Stack
from .start import launch, wait_ready


def start_fresh(config: StackConfig, model: Model, logs: Path, progress: Progress) -> Stack:
    """Start a stack and return it when every server answers and states what is configured.

    Args:
        config: the stack; others may run beside it.
        model: what its engines serve.
        logs: folder of a log for each program.
        progress: told what happens, a line at a time.

    Raises:
        StackError: the machine lacks memory, shared memory or disk for it, or a server states something else.
        ServerError: a server did not start; nothing is left running.
    """
    for check in resources(config):
        if not check.ok:
            raise StackError(f"{check.name} is too small: {check.seen}.\nTo fix: {check.remedy}")
    stack = launch(config, model, logs, progress)
    about = "about 35 s on 2 cores" if config.profile == "cpu" else "up to 3 minutes the first time"
    progress(f"stack: starting {' and '.join(one.name for one in stack.programs)} side by side ({about})")
    wait_ready(stack)
    try:
        check_statements(stack, f"To fix: look at {', '.join(stack.logs)}, and lmcache-tutorial doctor")
    except BaseException:
        stack.close()
        raise
    return stack


def check_statements(stack: Stack, fix: str) -> None:
    """Refuse a stack whose servers state something else than the configuration says.

    Raises:
        StackError: they do; ``fix`` ends the message.
    """
    if different := list(stack.differences()):
        raise StackError(f"{'; '.join(different)}.\n{fix}")
