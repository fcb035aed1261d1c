"""The exercises: what each asks for, its hints and its solution. Light: every pytest run loads this.

An exercise is a module of ``tutorial_tests/exercises`` that fails as it stands. What its reader changes
stands between two marks. Its hints are kept apart, in a file of ``solutions/``; the last one ends with the
code that belongs between the marks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from .header import LESSONS_FOLDER, read_fields

FOLDER, SOLUTIONS = Path(LESSONS_FOLDER, "exercises"), "solutions"
EXERCISE_FILE = re.compile(r"ex([1-9])_([1-9])_\w+\.py$")
TITLE = re.compile(r"Exercise ([1-9]\.[1-9])\. (.+)")
FIELDS = ("File", "Change", "Command", "Fails with", "Hints")
YOURS, JUDGE = "\n# %% yours\n", "\n# %% the judge\n"
HINT = re.compile(r"^## Hint \d\n", re.MULTILINE)
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class ExerciseError(ValueError):
    """There is no such exercise, or its files do not have the form; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """One exercise.

    Attributes:
        number: that of its lesson, and its own: ``4.1``.
        title: what is to be reached.
        path: its module.
        fields: of its docstring, see :data:`FIELDS`.
        fixtures: what its tests ask for, by name; without any it needs no engine.
        hints: from the first to the last, which ends with the solution.
    """

    number: str
    title: str
    path: Path
    fields: Mapping[str, str]
    fixtures: frozenset[str]
    hints: tuple[str, ...] = field(repr=False)

    @property
    def lesson(self) -> str:
        """The lesson that it belongs to: ``lesson4``."""
        return f"lesson{self.number[0]}"

    @property
    def reason(self) -> str:
        """What the failure of the exercise says as long as it is not solved."""
        return self.fields["Fails with"]

    @property
    def solution(self) -> str:
        """The code that belongs between the marks."""
        *_, code = CODE.finditer(self.hints[-1])
        return code.group(1).rstrip() + "\n"

    def text(self, *, solved: bool = False) -> str:
        """Return the module as it stands, or with the solution between its marks."""
        text = self.path.read_text()
        if not solved:
            return text
        before, _, rest = text.partition(YOURS)
        return f"{before}{YOURS}\n\n{self.solution}\n{JUDGE}{rest.partition(JUDGE)[2]}"

    def checks(self, *, solved: bool = False) -> tuple[Callable[..., None], ...]:
        """Run the module, as it stands or solved, and return its tests; nothing of them is called."""
        module = ModuleType(self.path.stem)
        module.__file__ = str(self.path)
        code = compile(self.text(solved=solved), str(self.path), "exec", dont_inherit=True)
        exec(code, module.__dict__)
        return tuple(check for name, check in vars(module).items() if name.startswith("test_"))


def exercise_number(path: Path) -> str | None:
    """Return ``4.1`` for ``tutorial_tests/exercises/ex4_1_….py``, else ``None``.

    >>> exercise_number(FOLDER / "ex4_1_put_it_in_order.py"), exercise_number(Path("ex4_1_mine.py"))
    ('4.1', None)
    """
    match = EXERCISE_FILE.fullmatch(path.name) if path.parts[-3:-1] == FOLDER.parts else None
    return f"{match.group(1)}.{match.group(2)}" if match else None


def all_exercises(root: Path) -> tuple[Exercise, ...]:
    """Read every exercise of a checkout, in their order.

    Args:
        root: the project's folder.

    Raises:
        ExerciseError: there is none, or one does not have the form.
    """
    paths = sorted((root / FOLDER).glob("ex*.py"))
    if not paths:
        raise ExerciseError(
            f"there are no exercises in {root / FOLDER}.\nTo fix: call it in the folder of a clone"
        )
    return tuple(map(read_exercise, paths))


def find_exercise(root: Path, number: str) -> Exercise:
    """Return an exercise by its number.

    Raises:
        ExerciseError: there is none of that number.
    """
    known = all_exercises(root)
    for exercise in known:
        if exercise.number == number:
            return exercise
    raise ExerciseError(
        f"there is no exercise {number}.\nTo fix: one of {', '.join(one.number for one in known)}"
    )


def read_exercise(path: Path) -> Exercise:
    """Read an exercise and its hints; the module is not run.

    Raises:
        ExerciseError: it does not have the form.
    """
    text = path.read_text()
    tree = ast.parse(text)
    title, fields = read_fields(ast.get_docstring(tree), FIELDS)
    named, number = TITLE.fullmatch(title), exercise_number(path.absolute())
    missing = [name for name in FIELDS if not fields.get(name)]
    missing += [f"the line “{mark.strip()}”" for mark in (YOURS, JUDGE) if text.count(mark) != 1]
    if not named or named.group(1) != number or missing:
        lacks = ", ".join(missing) or "its number in the title and in the file's name"
        raise ExerciseError(f"{path} lacks {lacks}.\nTo fix: see the other exercises")
    tests = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    fixtures = frozenset(argument.arg for test in tests for argument in test.args.args)
    hints = _hints(path.parent, named.group(1))
    return Exercise(named.group(1), named.group(2), path, fields, fixtures, hints)


def _hints(folder: Path, number: str) -> tuple[str, ...]:
    path = folder / SOLUTIONS / f"{number}.md"
    text = path.read_text() if path.is_file() else ""
    hints = tuple(hint.strip() for hint in HINT.split(text)[1:])
    if not hints or not CODE.search(hints[-1]):
        raise ExerciseError(f"{path} has no hints, or its last one no code.\nTo fix: see the other hints")
    return hints
