"""``diagnose``: what the command does with files, pages and gates, around the diagnosis itself."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Annotated

import typer

from ..diagnosis.diagnose import diagnose
from ..diagnosis.logs import open_log
from ..diagnosis.result import Diagnosis, diagnosis_page, diagnosis_text, unread_text
from ..models.model import CHAT_TEMPLATE
from ..models.small import small_model_folder
from ..prompts.rendering import Renderer
from ..quantities.formats import percent
from ..settings import bars
from ..settings.command_options import DiagnoseOptions
from ..settings.errors import ConfigError
from .parameters import with_options
from .printing import error, printable

LogFile = Annotated[
    Path, typer.Argument(help="requests, one a line: OpenAI chat, a vLLM log, a Langfuse export")
]


@with_options("diagnose")
def diagnose_log(file: LogFile, options: DiagnoseOptions) -> None:
    """Predict what a log of requests reuses, and name what stands in the way. Offline; nothing is asked."""
    bar = bars.percent("min_hit_rate", options.min_hit_rate) / 100
    allowed = options.allow_unread and bars.percent("allow_unread", options.allow_unread) / 100
    check_units(options)
    check_page_path(options.html, file)
    found = read_log(
        file,
        own_renderer(options.tokenizer),
        options.block_tokens,
        options.chunk_tokens,
        options.remembered_blocks,
    )
    if options.html:
        write_page(options.html, found, file)
    print(json.dumps(found.document()) if options.json else printable(diagnosis_text(found)))
    if options.min_hit_rate and (reason := gate_failure(found, bar, allowed)):
        error(f"failed: {reason}")
        raise typer.Exit(1)


def check_units(options: DiagnoseOptions) -> None:
    """Check that a chunk is a number of whole blocks.

    Raises:
        ConfigError: it is not.
    """
    if options.chunk_tokens % options.block_tokens:
        raise ConfigError(
            lambda option: (
                f"{option('chunk_tokens')} is {options.chunk_tokens}, but must be a multiple of "
                f"{options.block_tokens}, which is {option('block_tokens')}."
            )
        )


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


def own_renderer(tokenizer: Path | None) -> Renderer:
    """Return the renderer of a folder, or of the tutorial's own model.

    Raises:
        ConfigError: that is not prepared.
    """
    if tokenizer:
        return Renderer.from_folder(tokenizer)
    if not small_model_folder().is_dir():
        raise ConfigError(
            "no tokenizer: the tutorial's own model is not prepared here.\n"
            "To fix: lmcache-tutorial prepare, or --tokenizer FOLDER"
        )
    return Renderer.from_folder(small_model_folder(), CHAT_TEMPLATE)
