"""What ``lmcache-tutorial diagnose`` does with files, pages and gates, around the diagnosis itself."""

from __future__ import annotations

import sys
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from ..diagnosis.diagnose import diagnose
from ..diagnosis.logs import open_log
from ..diagnosis.result import Diagnosis, diagnosis_page, unread_text
from ..prompts.rendering import Renderer, RenderingError
from ..quantities.formats import percent
from ..settings.errors import ConfigError


@contextmanager
def diagnose_errors() -> Iterator[None]:
    """Print what we know how to explain to standard error, without a traceback; exit code 2."""
    try:
        yield
    except (ConfigError, RenderingError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        raise typer.Exit(2) from None


def read_log(
    file: Path, renderer: Renderer, block_tokens: int, chunk_tokens: int, remembered_blocks: int
) -> Diagnosis:
    """Diagnose a file.

    Raises:
        ConfigError: it cannot be read, or holds no request.
    """
    try:
        with open_log(file) as lines:
            found = diagnose(
                lines,
                renderer,
                block_tokens=block_tokens,
                chunk_tokens=chunk_tokens,
                remembered_blocks=remembered_blocks,
            )
    except (OSError, EOFError, zlib.error) as error:  # the last two: a gzip that was cut or damaged
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"{file} cannot be read: {reason}.\nTo fix: name a file of requests.") from None
    if not found.requests:
        seen = unread_text(found) if found.unread else "it has only lines of other kinds"
        raise ConfigError(
            f"no request was read: {seen}.\n"
            f"  looked in  {file}, {found.other_lines} lines of other kinds\n"
            "To fix: give it requests in a form that is read, one a line: OpenAI chat, completions or "
            "Responses requests, a vLLM log at level DEBUG, a Langfuse export or OTLP spans."
        )
    return found


def check_page_path(html: Path | None, log: Path) -> None:
    """Check, before the work is done, that a page can be written.

    Raises:
        ConfigError: it would overwrite the log, or has no folder.
    """
    if html is None:
        return
    if html.is_dir() or not html.parent.is_dir():
        where = "is a folder" if html.is_dir() else f"lies in {html.parent}, which is no folder"
        raise ConfigError(f"--html {html} {where}.\nTo fix: name a file in a folder that exists.")
    if html.exists() and log.exists() and html.samefile(log):
        raise ConfigError(f"--html {html} would overwrite the log.\nTo fix: name another file.")


def write_page(html: Path, found: Diagnosis, log: Path) -> None:
    """Write the page.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        html.write_text(diagnosis_page(found, printable(log.name)), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--html {html} cannot be written: {error.strerror}.\nTo fix: name another file."
        ) from None


def gate_failure(found: Diagnosis, bar: float, allowed: float) -> str:
    """Say why a diagnosis does not pass; an empty text if it does.

    Args:
        found: the diagnosis.
        bar: the hit rate that must be exceeded, a fraction of 1.
        allowed: the share of the requests that may be unread, a fraction of 1.
    """
    if found.unread_share > allowed:
        return (
            f"{unread_text(found)}, more than --allow-unread permits.\n"
            "To fix: mend these lines, or say how many may be unread: --allow-unread PERCENT"
        )
    if found.hit_rate <= bar:
        return f"the predicted hit rate of {percent(found.hit_rate)} is not above {percent(bar)}."
    return ""


def printable(text: str) -> str:
    r"""Replace what could steer a terminal; a log and a file's name may hold anything.

    >>> printable("a\x1b[2Jb")
    'a\ufffd[2Jb'
    """
    return "".join("\ufffd" if _steers(letter) else letter for letter in text)


def _steers(letter: str) -> bool:
    return letter not in "\n\t" and unicodedata.category(letter) in ("Cc", "Cf", "Cs")
