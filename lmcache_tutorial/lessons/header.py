"""How a lesson is named and what its docstring says. Light: every pytest run loads this."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HEADER_FIELDS = ("Question", "You will see", "Words", "Time", "Hardware", "Builds on")
SPELLINGS = {"ttft": "TTFT", "lmcache": "LMCache"}  # what a Python name cannot spell
OWNERS = ("engine", "lmcache", "server", "client", "node", "turn", "prompt", "cache")
POSSESSIVE = re.compile(rf"\b({'|'.join(OWNERS)})s own\b")  # several engines share; one engine's own cache
LESSONS_FOLDER = "tutorial_tests"
LESSON_FILE = re.compile(r"test_(lesson[1-9])_\w+\.py$")


class HeaderError(ValueError):
    """A lesson's docstring lacks its title or a field."""


@dataclass(frozen=True, slots=True)
class LessonHeader:
    """The docstring of a lesson: its title and the six fields."""

    title: str
    fields: Mapping[str, str]


def lesson_id(path: Path) -> str | None:
    """Return ``lesson3`` for ``tutorial_tests/test_lesson3_….py``, else ``None``.

    A file of that name in another folder is another project's, and none of ours.

    >>> lesson_id(Path("tutorial_tests/test_lesson3_more.py")), lesson_id(Path("school/test_lesson3_more.py"))
    ('lesson3', None)
    """
    match = LESSON_FILE.fullmatch(path.name) if path.parent.name == LESSONS_FOLDER else None
    return match.group(1) if match else None


def read_fields(docstring: str | None, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    r"""Read a docstring's title line, and its fields: each a name, two spaces and a text of any lines.

    >>> read_fields("Twice.\n\nA story.\n\nWords  hit,\n       miss", ["Words"])
    ('Twice', {'Words': 'hit, miss'})
    """
    title, _, rest = (docstring or "").strip().partition("\n")
    fields: dict[str, str] = {}
    current = None
    for line in rest.splitlines():
        name = next((name for name in names if line.startswith(name + "  ")), None)
        if name:
            current = name
            fields[name] = line.removeprefix(name).strip()
        elif current and line.strip():
            fields[current] += " " + line.strip()
    return title.rstrip("."), fields


def parse_header(docstring: str | None) -> LessonHeader:
    """Read a lesson's docstring: a title line, a blank line, then the fields, each a name and two spaces.

    Raises:
        HeaderError: the title or a field is missing.

    >>> fields = "Question  Why?|You will see  It.|Words  hit|Time  1|Hardware  any|Builds on  nothing"
    >>> parse_header("Lesson 2. Twice.||".replace("|", chr(10)) + fields.replace("|", chr(10))).title
    'Lesson 2. Twice'
    """
    title, fields = read_fields(docstring, HEADER_FIELDS)
    missing = [name for name in HEADER_FIELDS if not fields.get(name)]
    if not title or missing:
        raise HeaderError(
            f"the lesson's docstring lacks {', '.join(missing) or 'a title'}; see the other lessons"
        )
    return LessonHeader(title, fields)


def sentence(test_name: str, lesson: str) -> str:
    """Turn a test's name into the sentence that it proves.

    >>> sentence("test_lesson2_the_engines_own_ttft_is_short[long]", "lesson2")
    "The engine's own TTFT is short [long]"
    >>> sentence("test_lesson7_two_engines_share_one_lmcache", "lesson7")
    'Two engines share one LMCache'
    >>> sentence("test_lesson3_lmcaches_own_memory_and_the_engines_agree", "lesson3")
    "LMCache's own memory and the engines agree"
    """
    words = (
        test_name.removeprefix("test_")
        .removeprefix(lesson + "_")
        .replace("[", " [")
        .replace("_", " ")
        .split()
    )
    text = POSSESSIVE.sub(r"\1's own", " ".join(words))
    text = re.sub(r"[a-z]+", lambda word: SPELLINGS.get(word[0], word[0]), text)
    return text[:1].upper() + text[1:]
