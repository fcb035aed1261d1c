"""Real long documents: LMCache's own installed source, cut to a number of tokens."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path

SLACK_TOKENS = 8
COPY = re.compile(r"Copy [0-9a-f]{16} of the manual")


class CorpusError(RuntimeError):
    """The source text cannot be found, or is shorter than asked."""


@dataclass(frozen=True, slots=True)
class Document:
    """The specification of a document; nothing is read until :func:`cut`.

    ``size`` is ``short``, ``medium``, ``long``, ``kept`` or ``moved``: the profile says how many tokens that
    is on this machine. The seed decides which files come first.
    """

    name: str
    size: str
    seed: int


Read = Callable[[Document], str]
"""A document -> its text, cut for the machine's model and size."""


def source_files() -> list[Path]:
    """List the Python files of the installed LMCache, sorted; LMCache itself is not imported."""
    spec = util.find_spec("lmcache")
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError(
            "the documents are LMCache's own source, and lmcache is not installed.\nTo fix: make setup"
        )
    root = Path(spec.submodule_search_locations[0])
    return sorted(path for path in root.rglob("*.py") if path.stat().st_size > 2_000)


def full_text(document: Document, characters: int) -> str:
    """Join seeded source files, each under its name, until there are enough characters."""
    files = source_files()
    random.Random(document.seed).shuffle(files)
    parts: list[str] = []
    length = 0
    for path in files:
        parts.append(f"### File {path.parent.name}/{path.name}\n\n{path.read_text(errors='replace')}\n")
        length += len(parts[-1])
        if length >= characters:
            return "".join(parts)[:characters]
    raise CorpusError(
        f"LMCache's source has {length:,} characters, but {characters:,} were asked for.\n"
        f"  checked  {len(files)} Python files of the installed lmcache\n"
        f"To fix: install lmcache whole (make setup), or ask for a shorter document"
    )


def cut(document: Document, tokens: int, count: Callable[[str], int]) -> str:
    """Cut a document so that it has at most ``tokens`` and at least ``tokens - 8`` tokens by itself.

    Args:
        document: which text.
        tokens: the wanted length [tokens], above 8.
        count: counts the tokens of a text; the server's own tokenizer.

    Returns:
        The text; the count inside a rendered prompt is asked of the server.

    Raises:
        CorpusError: the source is too short, or no cut fits (a tokenizer with huge tokens).
    """
    text = full_text(document, characters=tokens * 8)
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        counted = count(text[:middle])
        if counted > tokens:
            high = middle - 1
        elif counted >= tokens - SLACK_TOKENS:
            return text[:middle]
        else:
            low = middle
    raise CorpusError(
        f"no cut of {document.name} has {tokens - SLACK_TOKENS} to {tokens} tokens: this model's tokens are "
        f"too long.\n"
        f"To fix: use another model"
    )


def fresh(text: str) -> str:
    """Put a nonce in front of a text: no cache, however old, can know the result.

    The nonce leads, because a prefix cache stops at the first token that differs.
    """
    return f"Copy {secrets.token_hex(8)} of the manual.\n\n{text}"


def copy_in(text: str) -> str:
    """Return the words by which :func:`fresh` made the first text within a text new; empty without any.

    >>> copy_in('[{"role": "system", "content": "Copy 0123456789abcdef of the manual. Read."}]')
    'Copy 0123456789abcdef of the manual'
    """
    found = COPY.search(text)
    return found.group() if found else ""
