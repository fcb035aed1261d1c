"""What tests of notebooks share."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

ABSOLUTE = re.compile(r"(?<![\w.:/<])/(?:home|root|tmp|usr|opt|work|var|mnt|srv|proc)/[\w.-]+")
PICTURE = re.compile(r"base64,([A-Za-z0-9+/=]+)")


def absolute_paths(notebook: NotebookNode) -> list[str]:
    """Return the absolute paths in what the cells of a notebook put out, in its pictures too."""
    text = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    return ABSOLUTE.findall(" ".join([PICTURE.sub("", text), *pictures_of(text)]))


def pictures_of(text: str) -> list[str]:
    """Return the drawings that stand in a text as data."""
    return [base64.b64decode(data).decode() for data in PICTURE.findall(text)]


def errors(notebook: NotebookNode) -> list[str]:
    """Return the names of what cells raised."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.ename for output in outputs if output.output_type == "error"]
