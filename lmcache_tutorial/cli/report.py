"""``headlines``: figures of reference runs, for a README. ``baseline``: what later runs are held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..gate.baseline import Baseline, BaselineError
from ..report.headlines import headlines, into
from ..settings.options import BaselineOptions, HeadlinesOptions
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
