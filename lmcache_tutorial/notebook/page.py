"""An executed notebook -> one HTML page: no script, nothing from outside of the file."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from ..pages.templating import page_environment
from .build import anchor

TEMPLATE = "notebook.html.jinja"
THEMES = {"light": "default", "dark": "github-dark"}  # of Pygments, for the colours of code
HTML, PLAIN = "text/html", "text/plain"


def notebook_page(notebook: NotebookNode) -> str:
    """Render a notebook.

    Args:
        notebook: built, and executed or not; what its cells put out as HTML is taken as it is.

    Returns:
        HTML text. Its headings have the places that the notebook's own links lead to.
    """
    page = page_environment()
    page.globals |= {"markdown": markdown, "code": code, "outputs": outputs}
    styles = {theme: HtmlFormatter(style=style).get_style_defs(".code") for theme, style in THEMES.items()}
    title = next(markdown_title(cell) for cell in notebook.cells if cell.cell_type == "markdown")
    return page.get_template(TEMPLATE).render(cells=notebook.cells, title=title, styles=styles)


def markdown(text: str) -> str:
    r"""Render a cell's Markdown; HTML in it is escaped, and a chapter's heading is a place to link to.

    >>> markdown("# Two words")
    '<h1 id="Two-words">Two words</h1>\n'
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.tag == "h1":
            opening.attrSet("id", anchor(inline.content))
    return str(parser.renderer.render(tokens, parser.options, {}))


def markdown_title(cell: NotebookNode) -> str:
    """Return the words of a cell's first heading."""
    return str(cell.source.partition("\n")[0].lstrip("# "))


def code(text: str) -> str:
    """Render a cell's code with its colours."""
    return str(highlight(text, PythonLexer(), HtmlFormatter(nowrap=True)))


def outputs(cell: NotebookNode) -> Iterator[str]:
    """Yield what a cell put out, each piece as HTML."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield _text(output.text)
        elif output.output_type == "error":
            yield _text("\n".join(output.traceback) or f"{output.ename}: {output.evalue}")
        else:
            yield _data(output.data)


def _data(data: Any) -> str:
    return str(data[HTML]) if HTML in data else _text(data.get(PLAIN, ""))


def _text(text: str) -> str:
    return f'<pre class="output">{escape(text)}</pre>'
