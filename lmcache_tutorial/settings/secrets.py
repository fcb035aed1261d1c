"""Which environment variables are secrets; one rule keeps them from the servers and out of every report."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html import escape

SHORTEST = 8  # a shorter value may stand in any text by chance, and is not taken out of one
SHORTEST_LINE = 16

# A name says so by one of its words (GITHUB_PAT), or by how one of them ends (PGPASSWORD, OPENAI_KEY).
WORDS = frozenset(
    (
        "AUTH",
        "BEARER",
        "COOKIE",
        "COOKIES",
        "CREDS",
        "DSN",
        "JWT",
        "PASS",
        "PAT",
        "PRIVATE",
        "TOKENS",
        "WEBHOOK",
    )
)
ENDINGS = (
    "CREDENTIAL",
    "CREDENTIALS",
    "KEY",
    "KEYS",
    "PASSPHRASE",
    "PASSWD",
    "PASSWORD",
    "PWD",
    "SECRET",
    "SECRETS",
    "TOKEN",
)
HARMLESS = frozenset({"PWD", "OLDPWD"})  # the shell's working directory

# Or the value has the form of one, whatever its name is.
FORMS = re.compile(
    r"""
      ://[^/\s:@]*:[^\s@]+@                      # a password in an address
    | ://[^/\s:@]{8,}@                           # a key in its place
    | (?:^|[?&;\s])\w*(?i:key|password|pwd|secret|sig|signature|token)=[^\s&;]  # in a query, a connection
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY
    | \b(?: sk-[\w-]{16,} | gh[opsru]_\w{20,} | github_pat_\w{20,} | glpat-[\w-]{16,} | hf_[A-Za-z0-9]{20,}
          | xox[abeprs]-[\w-]{10,} | AKIA[0-9A-Z]{16} | AIza[\w-]{30,} | eyJ[\w-]{10,}\.[\w-]{10,}\. )
    """,
    re.VERBOSE,
)
PASSWORD_IN_ADDRESS = re.compile(r"://[^/\s:@]*:([^\s@]+)@")


def is_secret(name: str, value: str = "") -> bool:
    """Tell whether an environment variable may hold a key that no server, report or log should see.

    A number of tokens is none, though its name has the word.

    >>> is_secret("AWS_ACCESS_KEY_ID"), is_secret("GITHUB_PAT"), is_secret("PGPASSWORD")
    (True, True, True)
    >>> is_secret("DATABASE_URL", "postgresql://me:hunter22@db/lessons")
    True
    >>> is_secret("VLLM_USE_FASTOKENS", "1"), is_secret("TOKENIZERS_PARALLELISM", "false"), is_secret("HOME")
    (False, False, False)
    """
    name = name.upper()
    words = [word.rstrip("0123456789") for word in re.split(r"[^A-Z0-9]+", name)]
    if name.startswith("LANGFUSE"):
        return True
    if FORMS.search(value):
        return True
    if name in HARMLESS or ({"TOKEN", "TOKENS"} & set(words) and value.isdigit()):
        return False
    return any(word in WORDS or word.endswith(ENDINGS) for word in words)


def redact(text: str) -> str:
    """Replace the value of every secret environment variable (8 characters or more) in a text.

    Its parts are replaced too where they tell the secret by themselves: the password in an address, the lines
    of a key. So is the form that it has in XML and HTML.
    """
    found = {
        form: name
        for name, value in os.environ.items()
        if is_secret(name, value)
        for part in _parts(value)
        for form in (part, escape(part), escape(part, quote=False))
    }
    for form in sorted(found, key=len, reverse=True):  # the whole before its parts
        text = text.replace(form, f"[{found[form]}]")
    return text


def _parts(value: str) -> Iterator[str]:
    if len(value) >= SHORTEST:
        yield value
    yield from (part for part in PASSWORD_IN_ADDRESS.findall(value) if len(part) >= SHORTEST)
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= SHORTEST_LINE)
