"""Where the lessons lie: a clone of the tutorial, and the file of each lesson in it."""

from __future__ import annotations

from pathlib import Path

from .header import LESSONS_FOLDER, lesson_id


class NoLessonsError(ValueError):
    """There are no lessons here, or none of that name; the message says what to do."""


def clone_around(place: Path) -> Path:
    """Return the root of the clone that a folder lies in.

    Raises:
        NoLessonsError: it lies in none.
    """
    for folder in (place.absolute(), *place.absolute().parents):
        if lesson_files(folder):
            return folder
    raise NoLessonsError(
        f"there are no lessons here.\n"
        f"  looked in  {place.absolute()}, and every folder above it, for {LESSONS_FOLDER}/\n"
        f"To fix: call it within a clone of the tutorial"
    )


def lesson_files(root: Path) -> dict[str, Path]:
    """Return the file of each lesson of a clone, by its id, in reading order."""
    found = {lesson_id(path): path for path in sorted((root / LESSONS_FOLDER).glob("test_lesson*.py"))}
    return {name: path for name, path in found.items() if name}


def chosen_files(root: Path, chosen: list[str]) -> dict[str, Path]:
    """Return the files of some lessons, in reading order; of all, where none is named.

    Raises:
        NoLessonsError: a lesson of that name does not exist.
    """
    files = lesson_files(root)
    if unknown := [name for name in chosen if name not in files]:
        raise NoLessonsError(
            f"there is no {' and no '.join(unknown)}.\n"
            f"  looked in  {root / LESSONS_FOLDER}\n"
            f"To fix: name some of these: {', '.join(files)}"
        )
    return {name: path for name, path in files.items() if not chosen or name in chosen}
