"""The commands of the workbench: ``repeat`` and ``prefill-rate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..machine.checks import instruction_set_here
from ..workbench.prefill_rate import prefill_rate_lines
from ..workbench.repeat import heading, repeat, run_line, summary


def repeat_lessons(
    count: Annotated[int, typer.Argument(min=1, help="runs, with those that were finished earlier")],
    chosen: Annotated[str, typer.Argument(help='lessons, as pytest -k takes them: "lesson2 or lesson3"')],
    options: Annotated[list[str] | None, typer.Argument(help="further options of pytest")] = None,
) -> None:
    """Run lessons several times in a row: is the gate steady here? Cut off, it goes on where it was.

    The exit code is 1 if a run failed a claim, could not decide one, or reused another number of tokens than
    predicted.
    """
    print(heading(), flush=True)
    runs = []
    for found in repeat(count, chosen, options or [], Path.cwd()):
        runs += found
        print("\n".join(run_line(one) for one in found), flush=True)
    print("\n".join(summary(runs, instruction_set_here())))
    if not all(one.steady for one in runs):
        raise typer.Exit(1)


def prefill_rate() -> None:
    """Print how many tokens a second this processor prefills, in each number format; two minutes."""
    for line in prefill_rate_lines():
        print(line, flush=True)
