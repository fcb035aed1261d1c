"""``learn`` and ``hint``: the exercises, for who works on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..lessons.exercises import find_exercise
from ..lessons.learned import LEARNED, Learned, note_learned, read_learned
from ..settings.errors import ConfigError
from ..settings.packages import need_watching
from ..stack.kept_state import kept_servers
from ..workbench.learn import RUN_LIMIT_S, listing, runs
from .printing import line, printable

Number = Annotated[str, typer.Argument(help="of the exercise, such as 4.1")]
Level = Annotated[int | None, typer.Argument(min=1, help="which hint; none: the next one")]

Watched = Annotated[str | None, typer.Argument(help="an exercise that is watched; none: all are listed")]
Options = Annotated[list[str] | None, typer.Argument(help="further options of pytest")]


def learn(number: Watched = None, options: Options = None) -> None:
    """List lessons and exercises with what is done; or run one exercise at each save of its file.

    The run uses the kept stack; where none is kept, the first run that needs one starts it, and keeps it.
    """
    root = Path.cwd()
    if number is None:
        for each in listing(root):
            line(each)
        kept = ", ".join(kept_servers()) or "none; the first exercise that needs one starts it"
        line(f"\nkept stack: {kept}\nlmcache-tutorial learn 4.1 runs an exercise at each save")
        return
    exercise = find_exercise(root, number)
    need_watching("lmcache-tutorial learn")
    told = [f"{name:<9}{exercise.fields[name]}" for name in ("File", "Change")]
    tell(f"Exercise {number}. {exercise.title}", *told, f"Stuck?   lmcache-tutorial hint {number}")
    try:
        for took_s in runs(exercise, options or []):
            result = (
                f"no result after {RUN_LIMIT_S:g} s"
                if took_s is None
                else f"{took_s:.1f} s from the save to this"
            )
            tell(f"{result}; the next save runs it again, Ctrl-C ends it\n")
    except KeyboardInterrupt:
        tell("\nended; a kept stack goes on running (lmcache-tutorial status, lmcache-tutorial down)")


def tell(*lines: str) -> None:
    """Print lines at once: a run prints into the same terminal."""
    print(printable("\n".join(lines)), flush=True)


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
