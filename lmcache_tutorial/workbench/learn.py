"""Exercises at work: what is done of them, and one of them run at each save, against the kept stack.

A run is a pytest of its own. What it imports takes longer than what it measures, so that a server that has
imported all of it forks it (``multiprocessing``'s forkserver, a process without threads).
"""

from __future__ import annotations

import ast
import json
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..lessons.exercises import Exercise, all_exercises
from ..lessons.header import LESSONS_FOLDER, lesson_id, parse_header
from ..lessons.learned import Learned, read_learned
from ..machine.children import END_LIMIT_S
from .gate_run import LIGHT

PRELOADED = (
    "pytest",
    "langfuse.langchain",
    "lmcache_tutorial.graphs.agent",
    "lmcache_tutorial.graphs.pairs",
    "lmcache_tutorial.graphs.told",
    "lmcache_tutorial.stack.keep",
    "lmcache_tutorial.report.results",
)
# A failure is told by its message alone; what the exercise prints stands above it.
TOLD = ("-q", "-s", "-rN", "--tb=line", "--assert=plain", "--color=no", "--no-header", "--disable-warnings")
RUN_LIMIT_S = 600.0  # an exercise, and the first time the start of its stack: three minutes on a GPU
LOOKED_EVERY_MS = 500  # at the file itself, too: some file systems tell of no change
NOT_YET = "-"


def listing(root: Path) -> Iterator[str]:
    """Yield a line for each lesson, with its outcome in the last report, and for each of its exercises.

    Args:
        root: the project's folder.

    Raises:
        ExerciseError: there is no exercise in it.
    """
    exercises, learned, outcomes = all_exercises(root), read_learned(root), lesson_outcomes(root)
    for path in sorted((root / LESSONS_FOLDER).glob("test_lesson*.py")):
        lesson = lesson_id(path.absolute())
        title = parse_header(ast.get_docstring(ast.parse(path.read_text()))).title
        yield f"{outcomes.get(lesson or '', NOT_YET):<12}{title}"
        for exercise in exercises:
            if exercise.lesson == lesson:
                done = learned.get(exercise.number, Learned())
                yield f"{state(done):<12}  {exercise.number} {exercise.title}"


def state(done: Learned) -> str:
    """Say in a word or two how far an exercise is.

    >>> state(Learned()), state(Learned(hints=1)), state(Learned(hints=3, solved=True))
    ('-', '1 hint', 'solved')
    """
    if done.solved:
        return "solved"
    return f"{done.hints} hint{'s' if done.hints > 1 else ''}" if done.hints else NOT_YET


def lesson_outcomes(root: Path) -> dict[str, str]:
    """Return the outcome of each lesson in the last report; nothing where there is none."""
    try:
        found: Mapping[str, Any] = json.loads((root / "reports" / "results.json").read_text())
        return {lesson["id"]: lesson["outcome"] for lesson in found["lessons"]}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def runs(exercise: Exercise, options: Sequence[str]) -> Iterator[float | None]:
    """Run an exercise now and after each save of its file; what it prints goes to the terminal.

    A stack is started for the first run that needs one, and kept; the others reuse it.

    Args:
        exercise: which is watched.
        options: further ones of pytest.

    Yields:
        How long after the save the result was there [s]; ``None`` where the run had to be ended after
        ``RUN_LIMIT_S``.

    Raises:
        KeyboardInterrupt: a run was interrupted, and has ended.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(list(PRELOADED))
    arguments = [str(exercise.path), *TOLD, *LIGHT, "-p", "no:anyio", "--kv-keep", *options]
    for saved_at in saves(exercise.path):
        run = processes.Process(target=_pytest, args=(arguments,))
        run.start()
        try:
            run.join(RUN_LIMIT_S)
        finally:
            if hung := run.is_alive():  # or it was interrupted
                run.terminate()
                run.join(END_LIMIT_S)
                run.kill()
        yield None if hung else time.time() - saved_at


def saves(path: Path) -> Iterator[float]:
    """Yield the time of now, and then that of each save of a file; it ends with an interrupt."""
    from watchfiles import watch

    seen = _stamp(path)
    yield time.time()
    changes = watch(
        path.parent,
        watch_filter=lambda _, changed: Path(changed).name == path.name,
        rust_timeout=LOOKED_EVERY_MS,
        yield_on_timeout=True,  # also for a save before the watch began, or during a run
        recursive=False,
    )
    for _ in changes:
        now = _stamp(path)
        if now and now != seen:
            seen = now
            yield now[0] / 1e9


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tell one state of a file from another; ``None`` while an editor has it away."""
    with suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size
    return None


def _pytest(arguments: list[str]) -> None:
    import pytest

    raise SystemExit(int(pytest.main(arguments)))
