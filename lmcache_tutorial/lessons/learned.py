"""What a reader has done of the exercises, in a small file of the checkout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..machine.files import write_atomically

LEARNED = Path("reports", "exercises.json")


@dataclass(frozen=True, slots=True)
class Learned:
    """Of one exercise: the hints that were shown, and whether it has ever passed."""

    hints: int = 0
    solved: bool = False


def read_learned(root: Path) -> dict[str, Learned]:
    """Read what was done, by the exercises' numbers; nothing where there is no file, or a damaged one.

    Args:
        root: the project's folder.
    """
    try:
        found: Mapping[str, Mapping[str, Any]] = json.loads((root / LEARNED).read_text())
        return {number: Learned(**one) for number, one in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note_learned(root: Path, number: str, **changes: Any) -> None:
    """Write down what was done of an exercise.

    Args:
        root: the project's folder.
        number: the exercise's.
        changes: fields of :class:`Learned` and what they are now.

    Raises:
        OSError: it cannot be written.
    """
    known = read_learned(root)
    known[number] = replace(known.get(number, Learned()), **changes)
    (root / LEARNED).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: asdict(one) for name, one in sorted(known.items())}, indent=1)
    write_atomically(root / LEARNED, text + "\n")
