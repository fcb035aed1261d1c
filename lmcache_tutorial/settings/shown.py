"""What others said, made fit to be shown: without secrets, and without what a terminal or a CI would obey."""

from __future__ import annotations

import re

from .secrets import redact

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
COMMAND = re.compile(r"^(\s*):(?=:)", re.MULTILINE)  # GitHub obeys a line that begins with two colons


def shown(text: str) -> str:
    r"""Return a text that may be printed, written into a page, or handed to a CI.

    Keys are taken out; control characters become their names in Python, so that a colour or a cursor's
    movement in a model's answer is seen and not done; no line is a command to GitHub.

    >>> shown("\x1b[31mred\x1b[0m\r\nnext\n::error::no")
    '\\x1b[31mred\\x1b[0m\\r\nnext\n: :error::no'
    """
    text = CONTROLS.sub(lambda found: ascii(found[0])[1:-1], redact(text))
    return COMMAND.sub(r"\1: ", text)
