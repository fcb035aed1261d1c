"""``hint``: the exercises, for who works on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..lessons.exercises import find_exercise
from ..lessons.learned import LEARNED, Learned, note_learned, read_learned
from ..settings.errors import ConfigError
from .printing import line

Number = Annotated[str, typer.Argument(help="of the exercise, such as 4.1")]
Level = Annotated[int | None, typer.Argument(min=1, help="which hint; none: the next one")]


def hint(number: Number, level: Level = None) -> None:
    """Print the next hint to an exercise; the last one ends with a solution."""
    root = Path.cwd()
    exercise = find_exercise(root, number)
    seen, hints = read_learned(root).get(number, Learned()).hints, exercise.hints
    place = level or min(seen + 1, len(hints))
    if place > len(hints):
        raise ConfigError(
            f"exercise {number} has {len(hints)} hints.\nTo fix: lmcache-tutorial hint {number}"
        )
    line(f"Exercise {number}. {exercise.title}: hint {place} of {len(hints)}\n")
    line(hints[place - 1])
    note(root, number, hints=max(seen, place))


def note(root: Path, number: str, *, hints: int) -> None:
    """Write down how many hints were shown.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        note_learned(root, number, hints=hints)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"{root / LEARNED} cannot be written: {reason}.\nTo fix: make its folder yours"
        ) from None
