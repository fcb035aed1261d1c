"""``notebook``: the lessons as one notebook, made, executed on a kept stack, and rendered as a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from ..lessons.folder import chosen_files, clone_around
from ..settings.command_options import NotebookOptions
from ..settings.errors import ConfigError
from ..settings.options import RunOptions
from ..settings.packages import need_notebook, need_servers
from ..settings.paths import user_path, write_user_file
from ..settings.run import run_config
from ..stack.keep import take_down
from ..stack.kept_state import kept_servers
from .parameters import with_options
from .printing import error, line

SUFFIX = ".ipynb"
FAILED = Path("reports") / "notebook" / f"failed{SUFFIX}"


@with_options("notebook")
def make_notebook(
    options: NotebookOptions,
    lessons: Annotated[list[str] | None, typer.Argument(help="lessons, such as lesson2; none: all")] = None,
) -> None:
    """Make a notebook of the lessons, run it on a kept stack, and write it with an HTML page beside it."""
    need_notebook("lmcache-tutorial notebook")
    from nbformat.sign import NotebookNotary

    from ..notebook.build import build
    from ..notebook.execute import NotebookRunError, execute, text_of
    from ..notebook.page import notebook_page

    root = clone_around(Path.cwd())
    target = _target(root / user_path("into", options.into))
    made = build(chosen_files(root, lessons or []))
    if not options.empty:
        need_servers(run_config(RunOptions()).stack.profile, "lmcache-tutorial notebook")
        try:
            with _servers_left_as_they_were():
                execute(made, root, cell_limit_s=options.cell_limit_s, progress=line)
        except NotebookRunError as problem:
            (root / FAILED).parent.mkdir(parents=True, exist_ok=True)
            write_user_file(root / FAILED, text_of(made))
            error(f"failed: {problem}\nTo see all of it: {FAILED}")
            raise typer.Exit(1) from None
    write_user_file(target, text_of(made))
    write_user_file(target.with_suffix(".html"), notebook_page(made))
    with suppress(OSError):  # JupyterLab then trusts it as if it had run there
        NotebookNotary().sign(made)
    line(f"notebook: {target} and {target.with_suffix('.html').name} beside it")


def _target(path: Path) -> Path:
    """Check, before the work is done, that a notebook and its page can be written there.

    Raises:
        ConfigError: the name is none of a notebook, or there is no such folder to write to.
    """
    if path.suffix != SUFFIX:
        raise ConfigError(lambda option: f"{option('into')} is {path}.\nTo fix: a name that ends in {SUFFIX}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        where = "is a folder" if path.is_dir() else f"lies in {path.parent}, which cannot be written"
        raise ConfigError(f"{path} {where}.\nTo fix: name a file in a folder of yours")
    return path


@contextmanager
def _servers_left_as_they_were() -> Iterator[None]:
    """Stop what the notebook has started and kept; a stack that was kept before stays."""
    was_kept = bool(kept_servers())
    try:
        yield
    finally:
        if not was_kept:
            take_down(line)
