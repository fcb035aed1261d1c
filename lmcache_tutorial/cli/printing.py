"""What the commands print, and where: errors to standard error, and nothing that steers a terminal."""

from __future__ import annotations

import unicodedata

from rich.console import Console

_console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
_errors = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=True)


def line(text: str) -> None:
    """Print a line."""
    _console.print(printable(text))


def error(text: str) -> None:
    """Print what went wrong, to standard error."""
    _errors.print(printable(text), style="red")


def printable(text: str) -> str:
    r"""Replace what could steer a terminal; a log and a file's name may hold anything.

    >>> printable("a\x1b[2Jb")
    'a\ufffd[2Jb'
    """
    return "".join("\ufffd" if _steers(letter) else letter for letter in text)


def _steers(letter: str) -> bool:
    return letter not in "\n\t" and unicodedata.category(letter) in ("Cc", "Cf", "Cs")
