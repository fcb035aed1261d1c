"""``report``: pages of runs, one or many. ``headlines``: for a README. ``baseline``: for later runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from jinja2 import TemplateError

from ..gate.baseline import Baseline, BaselineError
from ..machine.files import write_atomically
from ..report.compared import render_compared
from ..report.headlines import headlines, into
from ..report.joined import join
from ..report.page import write_report
from ..report.results import write_results
from ..report.runs import FIX, NamedRun, RunError, page_of, read_run, results_file
from ..settings.command_options import BaselineOptions, HeadlinesOptions, ReportOptions
from ..settings.errors import ConfigError, MissingExtraError
from ..settings.paths import user_path, write_user_file
from .parameters import with_options
from .printing import line


@with_options("headlines")
def show_headlines(
    files: Annotated[list[Path], typer.Argument(help="results.json of each run")], options: HeadlinesOptions
) -> None:
    """Print the headlines of runs as Markdown, or put them into a README."""
    readme = user_path("into", options.into or "README.md")
    text = headlines(files, readme)
    if options.into:
        into(readme, text)
    else:
        line(text)


@with_options("report")
def make_report(
    runs: Annotated[list[Path], typer.Argument(help="folders of reports, or results.json files")],
    options: ReportOptions,
) -> None:
    """Make the page of a run again; put several runs side by side; or join several into one (--merge)."""
    target = user_path("into", options.into) if options.into else None
    if options.merge:
        _join(runs, target or Path("reports", "joined", "results.json"))
    elif len(runs) == 1:
        _page(runs[0], target or page_of(results_file(runs[0])))
    else:
        _side_by_side(runs, target or Path("reports", "runs.html"))


def _page(run: Path, target: Path) -> None:
    results = read_run(run)
    _written(target, lambda: write_report(results, target))
    line(f"report: {target}")


def _side_by_side(runs: Sequence[Path], target: Path) -> None:
    named = []
    for run in runs:
        page = page_of(results_file(run))
        link = quote(os.path.relpath(page, target.parent)) if page.is_file() else ""
        named.append(NamedRun(str(run), read_run(run), link))
    _written(target, lambda: write_atomically(target, render_compared(named)))
    line(f"side by side: {len(named)} runs in {target}")


def _join(runs: Sequence[Path], target: Path) -> None:
    if target.suffix != ".json":
        raise RunError(
            f"{target} is no name for joined results.\nTo fix: --into FILE.json; the page comes beside it"
        )
    taken = [run for run in runs if results_file(run).resolve() == target.resolve()]
    if taken:
        raise RunError(
            f"{target} is one of the runs to join, and would be lost.\nTo fix: --into another file"
        )
    joined, page = join([NamedRun(str(run), read_run(run)) for run in runs]), page_of(target)
    _written(target, lambda: write_results(joined, target))
    _written(page, lambda: write_report(joined, page))
    line(f"joined: {len(joined['joined'])} runs in {target}")
    line(f"report: {page}")


def _written(path: Path, write: Callable[[], None]) -> None:
    """Write a file that a user named, and what it lies in, or say why not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path} cannot be written: {reason}.\nTo fix: name a file of yours") from None
    except ModuleNotFoundError as error:  # a chart without matplotlib
        raise MissingExtraError(str(error)) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, TemplateError) as error:
        why = f"{type(error).__name__} {error}"
        raise RunError(f"{path} cannot be made of what was read: {why}.\n{FIX}") from None


@with_options("baseline")
def write_baseline(
    file: Annotated[Path, typer.Argument(help="results.json of a run with groups of prompts")],
    options: BaselineOptions,
) -> None:
    """Keep what a run has found of your prompts; pytest --kv-baseline=FILE compares later runs with it."""
    source, target = file, user_path("into", options.into)
    try:
        results = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaselineError(f"{source} holds no results: {error}.\nTo fix: pytest --kv-url=… first") from None
    made = Baseline.of(results, options.reason)
    write_user_file(target, made.text())
    line(f"baseline: {len(made.groups)} groups in {target}; commit it, and run pytest --kv-baseline={target}")
