"""``headlines``: the figures of reference runs, for a README."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..report.headlines import headlines, into
from ..settings.options import HeadlinesOptions
from ..settings.paths import user_path
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
