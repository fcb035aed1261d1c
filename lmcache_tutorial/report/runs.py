"""Runs are read again: a report's folder or its results.json -> the document, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .results import check, upgrade

RESULTS, PAGE = "results.json", "index.html"
FIX = "To fix: name the folder of a report, or the results.json in it"


class RunError(ValueError):
    """What was named cannot be read as a run, or runs cannot be joined; the message says what to do."""


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run, and where it was read; ``link`` leads to its own page from another one, if it has one."""

    where: str
    results: Mapping[str, Any]
    link: str = ""


def results_file(named: Path) -> Path:
    """Return the results of a report's folder; a file stands for itself."""
    return named / RESULTS if named.is_dir() else named


def page_of(results: Path) -> Path:
    """Name the page that lies beside results.

    >>> str(page_of(Path("reports/results.json"))), str(page_of(Path("all.json")))
    ('reports/index.html', 'all.html')
    """
    return results.with_name(PAGE) if results.name == RESULTS else results.with_suffix(".html")


def read_run(named: Path) -> dict[str, Any]:
    """Read a run; one of an older schema is converted, and says so in its notes.

    Raises:
        RunError: it cannot be read, or breaks the contract of results.json.
    """
    path = results_file(named)
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        found = upgrade(document)
        check(found)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.\n{FIX}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is no results.json: {error}.\n{FIX}") from None
    except (LookupError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__} {error}"
        raise RunError(f"{path} is no results.json: {why}.\n{FIX}") from None
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")
