"""A chapter of the notebook, within its kernel: how it begins, its claims run by pytest, and what they found.

The cells of a chapter define its constants, fixtures and claims in the kernel's own module. For pytest that
module *is* the lesson's while the claims run: it has the lesson's name, path and docstring, so that the
plugin, the root's conftest.py and the fixtures work as they do in a terminal. Each run is a pytest session of
its own; the servers are kept between them.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..gate.verdict import EXIT_CODES
from ..lessons.folder import chosen_files, clone_around
from ..settings.packages import need_notebook
from .inline import show_results

CHAPTER_FOLDER = "reports/notebook/{lesson}"  # within the clone
NO_CLAIM = 5  # pytest's exit code of a selection without a test
# Quiet: what was measured is shown by the next cell, and others' warnings stand in a run of a terminal.
PYTEST = (
    "-q",
    "--color=no",
    "--import-mode=importlib",
    "-p",
    "no:cacheprovider",
    "--disable-warnings",
    "--kv-keep",
)


class ChapterError(Exception):
    """A chapter's claims did not all pass, or could not run; the message says which, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """Have IPython show the message alone: the traceback of each claim stands above, from pytest."""
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class Chapter:
    """A lesson in this kernel: its id, its module's file, and the root of the clone."""

    lesson: str
    file: Path
    root: Path

    @property
    def folder(self) -> Path:
        """Where its report goes: results.json, the page, traces and logs."""
        return self.root / CHAPTER_FOLDER.format(lesson=self.lesson)

    def run(self, *options: str) -> None:
        """Run the chapter's claims with pytest, on the kept stack; if none is kept, one is started and kept.

        A claim that its rounds left undecided is measured once more, in a run of its own.

        Args:
            options: further ones of pytest, such as ``"-k", "whole_block"`` or ``"--kv-min-hit-rate=95"``.

        Raises:
            ChapterError: a claim did not pass, or none could run.
        """
        code = self._pytest(options)
        if code == EXIT_CODES["incomplete"] and self._claims("undecided"):
            print("undecided, so measured once more:")
            code = self._pytest(options)
        if code != EXIT_CODES["passed"]:
            raise ChapterError(self._why(code))

    def show(self) -> None:
        """Show what the claims found: predictions, charts, who served, claims and the trace.

        Raises:
            ChapterError: they have not run yet.
        """
        show_results(self._results(), self.lesson)

    def _pytest(self, options: tuple[str, ...]) -> int:
        import ipytest

        self._results_file.unlink(missing_ok=True)  # of an earlier run, should this one not get so far
        folders = (f"--rootdir={self.root}", f"--kv-report-dir={self.folder}")
        words = [*PYTEST, *folders, *options, str(self.file)]
        with self._main_is_the_lesson():
            code = ipytest.run(
                *(word.replace("{", "{{").replace("}", "}}") for word in words),  # it fills in names
                addopts=(),
                defopts=False,
                run_in_thread=False,  # only the main thread may turn a signal into an interrupt
                raise_on_error=False,
                display_columns=100,
                coverage=False,
            )
        return int(code)

    @contextmanager
    def _main_is_the_lesson(self) -> Iterator[None]:
        """Let pytest find the kernel's own module where it would import the lesson's file."""
        main = sys.modules["__main__"]
        name = ".".join(self.file.relative_to(self.root).with_suffix("").parts)
        docstring, main.__doc__ = main.__doc__, ast.get_docstring(ast.parse(self.file.read_text()))
        sys.modules[name] = main
        try:
            yield
        finally:
            del sys.modules[name]
            main.__doc__ = docstring

    @property
    def _results_file(self) -> Path:
        return self.folder / "results.json"

    def _results(self) -> Mapping[str, Any]:
        try:
            read: Mapping[str, Any] = json.loads(self._results_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ChapterError(
                f"{self.lesson} has no results.\n"
                f"  looked in  {self._results_file}\n"
                f"To fix: run chapter.run() first"
            ) from None
        return read

    def _claims(self, *outcomes: str) -> list[str]:
        """Say which claims ended so, one a line, with the first line of their message."""
        lessons = self._results()["lessons"] if self._results_file.exists() else []
        claims = [claim for one in lessons for claim in one["claims"] if claim["outcome"] in outcomes]
        return [
            f"  {one['outcome'].replace('_', ' ')}: {one['name']}: {(one['message'] or '–').splitlines()[0]}"
            for one in claims
        ]

    def _why(self, code: int) -> str:
        """Say why a run did not end with 0."""
        if code == NO_CLAIM:
            return (
                f"{self.lesson} has no claim that could run.\n"
                "To fix: run the cells of this chapter from its title on, and mind what -k selects"
            )
        if claims := self._claims("failed", "error", "undecided", "skipped", "not_run"):
            return "\n".join([f"{self.lesson}: not every claim passed.", *claims])
        return f"{self.lesson} did not run: pytest ended with exit code {code}; what it said stands above."


def begin_chapter(lesson: str) -> Chapter:
    """Begin a chapter of the notebook: forget what the chapters before it have defined.

    Without that a fixture or a claim of another chapter would count in this one, where it has the same name.
    Variables of your own are forgotten too, unless their names begin with an underscore.

    Args:
        lesson: its id, such as ``"lesson2"``.

    Returns:
        The chapter: ``chapter.run()`` runs its claims, ``chapter.show()`` shows what they found.

    Raises:
        ChapterError: this is no kernel of a notebook.
        MissingExtraError: what runs pytest in a kernel is not installed.
        NoLessonsError: the kernel does not run within a clone, or there is no such lesson.
    """
    need_notebook("a chapter of the notebook")
    import ipytest
    from IPython.core.getipython import get_ipython

    if not (shell := get_ipython()):
        raise ChapterError(
            "a chapter runs in the kernel of a notebook, and here is none.\n"
            f"To fix: open the notebook in JupyterLab, or in a terminal: pytest -k {lesson}"
        )
    root = clone_around(Path.cwd())
    (file,) = chosen_files(root, [lesson]).values()
    ipytest.config(rewrite_asserts=True)  # a claim that fails shows the values that it compared
    for name in list(shell.user_ns):
        if not name.startswith("_") and name not in shell.user_ns_hidden:  # what IPython has put there stays
            del shell.user_ns[name]
    return Chapter(lesson, file, root)
