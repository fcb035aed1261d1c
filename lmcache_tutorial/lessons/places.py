"""Where a lesson shows something: a part of its chapter, in words and as the id of a page's element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["prediction", "served", "chart", "table", "values", "claims", "diagnosis", "trace"]
WORDS: Mapping[Kind, str] = {
    "prediction": "the row “{}” under “Predicted and measured”",
    "served": "the bar “Who served the prompt tokens of the warm calls”",
    "chart": "the chart “{}”",
    "table": "the table “{}”",
    "values": "the rows “{}” under “All measured values, by arm”",
    "claims": "the claims",
    "diagnosis": "the diagnosis “{}”",
    "trace": "the trace “{}”",
}
# Kind -> the part of a lesson in results.json, and whether each of its entries has a place of its own.
PARTS: Mapping[Kind, tuple[str, bool]] = {
    "prediction": ("predictions", False),
    "chart": ("charts", True),
    "table": ("tables", True),
    "values": ("measurements", False),
    "claims": ("claims", False),
    "diagnosis": ("diagnoses", True),
    "trace": ("traces", True),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a lesson's chapter; ``name`` is empty for a kind of which a chapter has one.

    >>> print(Place("lesson2", "chart", "TTFT"))
    the chart “TTFT”
    """

    lesson: str
    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        """Say it in words."""
        return WORDS[self.kind].format(self.name)

    def found(self, lesson: Mapping[str, Any]) -> str | None:
        """Return the id of the part on the page of a lesson's results; ``None`` where it shows no such part.

        >>> charts = [{"name": "TTFT"}, {"name": "What a token costs"}]
        >>> Place("lesson1", "chart", "What a token costs").found({"charts": charts})
        'lesson1-chart2'
        >>> Place("lesson1", "trace", "one cold ask").found({"charts": charts})
        """
        if self.kind == "served":
            return f"{self.lesson}-served" if "tokens" in lesson.get("headline", {}) else None
        part, numbered = PARTS[self.kind]
        number = _number(self.name, lesson.get(part) or [])
        if number is None:
            return None
        return f"{self.lesson}-{self.kind}{number}" if numbered else f"{self.lesson}-{part}"


def _number(name: str, entries: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the place of the entry of that name, from 1; without a name any will do."""
    for number, entry in enumerate(entries, 1):
        if name in ("", entry.get("name")):
            return number
    return None
