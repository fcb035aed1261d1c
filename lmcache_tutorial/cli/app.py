"""The command ``lmcache-tutorial``: keep a stack running, and look after this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from ..gate.baseline import BaselineError
from ..lessons.exercises import ExerciseError
from ..lessons.folder import NoLessonsError
from ..lessons.header import HeaderError
from ..machine.children import interrupted_by_signals
from ..models.model import ModelError
from ..prompts.documents import CorpusError
from ..prompts.rendering import RenderingError
from ..report.headlines import HeadlinesError
from ..report.runs import RunError
from ..servers.counters import CountersError
from ..servers.process import ServerError
from ..settings.errors import ConfigError, MissingExtraError
from ..stack.kept_state import StackError
from ..traces.langfuse_api import LangfuseError
from .diagnose import diagnose_log
from .learn import hint, learn
from .machine import doctor, prepare
from .notebook import make_notebook
from .printing import error
from .prompts import from_langfuse
from .puzzle import puzzle
from .report import make_report, show_headlines, write_baseline
from .stack_commands import down, status, up
from .traces import send_traces
from .watch import watch_traces
from .workbench import prefill_rate, repeat_lessons, versions

USAGE = (
    BaselineError,
    ConfigError,
    ExerciseError,
    HeaderError,
    HeadlinesError,
    NoLessonsError,
    RenderingError,
    RunError,
)
FAILED = (
    CorpusError,
    CountersError,
    LangfuseError,
    MissingExtraError,
    ModelError,
    ServerError,
    StackError,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "up": up,
    "down": down,
    "status": status,
    "doctor": doctor,
    "prepare": prepare,
    "headlines": show_headlines,
    "report": make_report,
    "baseline": write_baseline,
    "diagnose": diagnose_log,
    "watch": watch_traces,
    "puzzle": puzzle,
    "learn": learn,
    "hint": hint,
    "repeat": repeat_lessons,
    "versions": versions,
    "prefill-rate": prefill_rate,
    "notebook": make_notebook,
}
GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "prompts": ("Files of prompts, made of what was really sent.", {"from-langfuse": from_langfuse}),
    "traces": ("What runs have recorded.", {"send": send_traces}),
}
# pytest's options stand among the command's own words.
CONTEXT = {name: {"ignore_unknown_options": True} for name in ("learn", "repeat")}


def clear_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Have a command say what we know how to explain, on standard error and without a traceback.

    The exit code is 2 for usage and 1 for what failed.
    """

    @wraps(command)
    def called(**given: Any) -> None:
        restore = interrupted_by_signals()
        try:
            command(**given)
        except (*USAGE, *FAILED) as problem:
            error(f"error: {problem}")
            raise typer.Exit(2 if isinstance(problem, USAGE) else 1) from None
        finally:
            for handler in restore:
                handler()

    return called


app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for name, command in COMMANDS.items():
    app.command(name, context_settings=CONTEXT.get(name))(clear_errors(command))
for name, (meaning, commands) in GROUPS.items():
    group = typer.Typer(help=meaning, no_args_is_help=True)
    for inner, command in commands.items():
        group.command(inner)(clear_errors(command))
    app.add_typer(group, name=name)


if __name__ == "__main__":
    app()
