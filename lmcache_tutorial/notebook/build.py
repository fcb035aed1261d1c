"""Lesson modules -> one notebook, not executed: the same lessons always make the same file.

A lesson is written in jupytext's percent format, so that its cells are the chapter's. Its docstring becomes
the chapter's title and table. Then comes a cell that begins the chapter, and before its exercises come those
that run its claims and show what they found.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ..lessons.glossary import glossary_table
from ..lessons.header import LessonHeader, parse_header
from ..settings.command_options import NOTEBOOK_FILE
from .chapter import CHAPTER_FOLDER

FRONT, TOUR = "front", "tour"  # the chapters that are no lesson, by the names of their files
HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
EXERCISES = re.compile(r"## \d\. Exercises")
BEGIN = 'from lmcache_tutorial import begin_chapter\n\nchapter = begin_chapter("{lesson}")'
RUN = """\
## The claims, run

pytest runs the claims above in this kernel, with the fixtures of `fixtures/`, and measures. A claim that does
not hold stops the notebook here, and says which one it was."""
SHOW = """\
## What they found

Every number below comes from `{folder}/results.json`, which the cell above has written."""
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def build(files: Mapping[str, Path]) -> NotebookNode:
    """Make the notebook of some lessons.

    Args:
        files: lesson id -> its module, in reading order.

    Returns:
        A valid notebook without outputs. Each cell's metadata names its ``chapter``; its id follows from the
        chapter and what stands in it, so that a cell keeps its id when others come and go.

    Raises:
        HeaderError: the docstring of a lesson lacks something.
    """
    sources = {lesson: path.read_text(encoding="utf-8") for lesson, path in files.items()}
    headers = {lesson: parse_header(ast.get_docstring(ast.parse(text))) for lesson, text in sources.items()}
    front, tour = _packaged(FRONT), _packaged(TOUR)
    titles = [
        *HEADING.findall(front)[1:],
        *(header.title for header in headers.values()),
        *HEADING.findall(tour),
    ]
    contents = "\n".join(f"- [{title}](#{anchor(title)})" for title in titles)
    front = Template(front).substitute(file=NOTEBOOK_FILE, contents=contents, glossary=glossary_table())
    chapters: dict[str, Iterable[NotebookNode]] = {FRONT: jupytext.reads(front, fmt="md").cells}
    for lesson, text in sources.items():
        chapters[lesson] = _chapter(lesson, headers[lesson], text)
    chapters[TOUR] = jupytext.reads(tour, fmt="md").cells
    cells = [cell for name, some in chapters.items() for cell in _named(name, some)]
    made: NotebookNode = new_notebook(
        cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    nbformat.validate(made)
    return made


def anchor(title: str) -> str:
    """Name the place of a heading, as JupyterLab does: a link to it is ``#`` and this.

    >>> anchor("Lesson 2. Ask twice, prefill once")
    'Lesson-2.-Ask-twice,-prefill-once'
    """
    return title.replace(" ", "-")


def _chapter(lesson: str, header: LessonHeader, text: str) -> Iterator[NotebookNode]:
    """Yield the cells of a lesson's chapter; its claims are run, and shown, before its exercises."""
    _, *cells = jupytext.reads(text, fmt="py:percent").cells  # the first one is the docstring
    at = next((n for n, cell in enumerate(cells) if EXERCISES.match(cell.source)), len(cells))
    yield new_markdown_cell(_title(header))
    yield new_code_cell(BEGIN.format(lesson=lesson))
    yield from cells[:at]
    yield from _closing(lesson)
    yield from cells[at:]


def _closing(lesson: str) -> Iterator[NotebookNode]:
    """Yield what closes every chapter, in its order; what each is to end with is one more cell here."""
    yield new_markdown_cell(RUN)
    yield new_code_cell("chapter.run()")
    yield new_markdown_cell(SHOW.format(folder=CHAPTER_FOLDER.format(lesson=lesson)))
    yield new_code_cell("chapter.show()")


def _title(header: LessonHeader) -> str:
    """Write a lesson's docstring as a heading and a table."""
    cells = ((name, text.replace("|", "\\|")) for name, text in header.fields.items())
    rows = "\n".join(f"| **{name}** | {text} |" for name, text in cells)
    return f"# {header.title}\n\n| | |\n|---|---|\n{rows}"


def _named(chapter: str, cells: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """Give cells their ids, and nothing in their metadata but their chapter."""
    taken: set[str] = set()
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        name, copies = f"{chapter}-{digest}", 1
        while name in taken:
            copies += 1
            name = f"{chapter}-{digest}-{copies}"
        taken.add(name)
        about: dict[str, Any] = {"id": name, "metadata": {"chapter": chapter}}
        if cell.cell_type == "code":
            yield new_code_cell(cell.source, **about)
        else:
            yield new_markdown_cell(cell.source, **about)


def _packaged(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.md").read_text(encoding="utf-8")
