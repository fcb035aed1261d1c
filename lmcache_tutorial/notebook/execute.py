"""A notebook is executed from its first cell on a fresh kernel of this Python, with a limit for each cell."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from traitlets.config import Config

# A chapter's run would tell the outer run's CI of its own results, and takes no part in its workers.
OUTER = ("GITHUB_", "PYTEST_XDIST", "PYTEST_CURRENT_TEST")


class NotebookRunError(RuntimeError):
    """A cell failed, took too long, or ended its kernel; the message names its chapter."""


class OwnPython(AsyncKernelManager):
    """Starts the kernel with this Python, whatever else a user has installed under the name ``python3``."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def execute(
    notebook: NotebookNode, root: Path, *, cell_limit_s: float, progress: Callable[[str], None]
) -> None:
    """Execute a notebook; its cells get their outputs. Paths in them are relative to the clone.

    Args:
        notebook: as :func:`build` made it.
        root: the clone's root, in which the kernel runs.
        cell_limit_s: how long one cell may take [s].
        progress: told which chapter begins.

    Raises:
        NotebookRunError: a cell did not come to its end; those before it have their outputs.
    """
    run = _Run(notebook, progress)
    try:
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(
                notebook,
                kernel_manager_class=OwnPython,
                config=_own_kernel(folder),
                resources={"metadata": {"path": str(root)}},
                timeout=round(cell_limit_s),
                on_cell_start=run.begin,
                record_timing=False,
                coalesce_streams=True,
            )
            client.execute(env=_environment(folder))
    except CellExecutionError as error:
        raise run.failed(f"{error.ename}: {error.evalue}") from None
    except CellTimeoutError:
        raise run.failed(
            f"a cell was not done after {cell_limit_s:g} s.\n"
            "To fix: give it more time, --cell-limit-s, or run the lesson by itself: pytest -k LESSON"
        ) from None
    except RuntimeError as error:  # of a kernel that did not start, or is dead
        raise run.failed(
            f"its kernel ended: {error}\n"
            "To fix: see whether the machine has memory left: lmcache-tutorial doctor"
        ) from None
    finally:
        relative(notebook, root)


class _Run:
    """Knows which cell is under way."""

    def __init__(self, notebook: NotebookNode, progress: Callable[[str], None]) -> None:
        self._titles = dict(_titles(notebook))
        self._progress = progress
        self._chapter = self._source = ""

    def begin(self, cell: NotebookNode, cell_index: int) -> None:
        """Take note of a cell, and tell of its chapter if it is the first one of it."""
        chapter, self._source = cell.metadata["chapter"], cell.source
        if chapter != self._chapter:
            self._chapter = chapter
            self._progress(f"notebook: {self._titles.get(chapter, chapter)}")

    def failed(self, reason: str) -> NotebookRunError:
        """Build the error of the cell that is under way."""
        where = f"in the chapter {self._titles.get(self._chapter, self._chapter)!r}" if self._chapter else ""
        return NotebookRunError(
            f"the notebook stopped {where or 'before its first cell'}.\n"
            f"  cell  {self._source.partition(chr(10))[0] or 'none yet'}\n"
            f"  seen  {reason}"
        )


def _titles(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Yield each chapter with the words of its first heading."""
    for cell in reversed(notebook.cells):  # of several, the first one stays in the mapping
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            yield cell.metadata["chapter"], cell.source.partition("\n")[0].removeprefix("# ")


def _own_kernel(folder: str) -> Config:
    """Have the kernel talk through sockets in a folder of this user's, and not on ports."""
    return Config({OwnPython.__name__: {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}})


def _environment(profile: str) -> dict[str, str]:
    """Return the kernel's environment: no start-up files and no history of the user's IPython."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OUTER)}
    return kept | {"IPYTHONDIR": profile}


def text_of(notebook: NotebookNode) -> str:
    """Write a notebook as a file holds it.

    Raises:
        nbformat.ValidationError: it is no valid notebook: a defect of this suite.
    """
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)) + "\n"


def relative(notebook: NotebookNode, root: Path) -> None:
    """Write paths in outputs relative to the clone or to Python's folder, and the user's home as ``~``."""
    short = {str(Path.home()): "~"} | dict.fromkeys((sys.base_prefix, sys.prefix, str(root)), ".")
    short.pop(os.sep, None)  # a home of some containers
    names = "|".join(re.escape(folder) for folder in sorted(short, key=len, reverse=True))
    # Not within a longer word, nor within the letters of a picture.
    folder = re.compile(rf"(?<![\w/+.-])({names})(/|(?![\w-]))")

    def shortened(found: re.Match[str]) -> str:
        return (short[found[1]] + found[2]).removeprefix("./")

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                _replaced(output, lambda text: folder.sub(shortened, text)) for output in cell.outputs
            ]


def _replaced(value: Any, replace: Callable[[str], str]) -> Any:
    """Replace every text in a value of JSON, in place."""
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, list):
        return [_replaced(one, replace) for one in value]
    if isinstance(value, dict):
        for name in value:
            value[name] = _replaced(value[name], replace)
    return value
