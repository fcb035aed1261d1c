"""Is the gate steady on this machine? The same lessons several times in a row, and what each run found.

Finished runs are kept in ``reports/repeat/``. What was cut off goes on where it was, if it is called again
with the same words, at the same commit and on the same processor. It starts anew while the working tree
differs from the commit, and where there is no commit.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..machine.checks import instruction_set_here, processor
from ..machine.children import run_child
from ..machine.files import write_atomically
from ..settings.errors import ConfigError

RUN_LIMIT_S = 1_800
NOTHING_TO_RUN = (4, 5)  # pytest's exit codes of a bad option, and of a selection without a test
HEADINGS = {"hit_rate": "hit rate %", "ttft_drop": "TTFT drop %", "ttft_drop_low": "its low end %"}


@dataclass(frozen=True, slots=True)
class LessonRun:
    """What one run found of one lesson.

    Attributes:
        run: the number of the run, from 1.
        lesson: its id, or the selection where a run wrote no results.
        outcome: as in results.json, or why there are none.
        exact: whether every prediction came out to the token.
        seconds: how long its claims took [s].
        hit_rate: reused tokens over prompt tokens, 0 to 1; so are the next two.
        ttft_drop: 1 - median warm / median cold.
        ttft_drop_low: the lower end of its interval.
        why: which claims did not pass, and what they said first; empty where all did.
    """

    run: int
    lesson: str
    outcome: str
    exact: bool
    seconds: float | None = None
    hit_rate: float | None = None
    ttft_drop: float | None = None
    ttft_drop_low: float | None = None
    why: str = ""

    @property
    def steady(self) -> bool:
        """Whether it passed, with every prediction exact."""
        return self.outcome == "passed" and self.exact


def lesson_runs(results: Mapping[str, Any], run: int) -> list[LessonRun]:
    """Return what a results.json document tells of each lesson, and of each group of a reader's prompts."""
    found = []
    for group in results.get("groups", []):
        exact = all(set(one["reused"]) == {one["predicted"]} for one in group["requests"])
        found.append(_lesson_run(group, run, group["name"], exact))
    for lesson in results["lessons"]:
        exact = all(one["predicted"] == one["measured"] for one in lesson["predictions"])
        found.append(_lesson_run(lesson, run, lesson["id"], exact))
    return found


def _lesson_run(one: Mapping[str, Any], run: int, name: str, exact: bool) -> LessonRun:
    figures = {figure: one["headline"].get(figure) for figure in HEADINGS}
    told = [
        f"{claim['name']} ({claim['outcome']}): {(claim['message'] or 'no reason told').splitlines()[0]}"
        for claim in one["claims"]
        if claim["outcome"] != "passed"
    ]
    return LessonRun(run, name, one["outcome"], exact, one["duration_s"], **figures, why="; ".join(told))


def repeat(count: int, chosen: str, options: Sequence[str], root: Path) -> Iterator[list[LessonRun]]:
    """Yield what each run found, those that were finished earlier first.

    Args:
        count: how many runs there shall be, with the earlier ones.
        chosen: which lessons, as ``pytest -k`` takes it.
        options: further options of pytest.
        root: the project's folder; finished runs are kept in its ``reports/repeat``.

    Raises:
        ConfigError: pytest refused the options, or found nothing to run.
    """
    kept = kept_file(root, [chosen, *options])
    runs = read_kept(kept)[:count]
    yield from runs
    for number in range(len(runs) + 1, count + 1):
        runs.append(_run_once(number, chosen, options, root))
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, "".join(json.dumps([asdict(one) for one in run]) + "\n" for run in runs))
        yield runs[-1]


def kept_file(root: Path, words: Sequence[str], kind: str = "repeat") -> Path:
    """Name the file of the runs of one commit, one selection and one processor; ``kind`` is its folder."""
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    commit = shown.stdout.strip() or "no-commit"
    unknown = shown.returncode != 0 or commit.endswith("-dirty")
    begun = str(time.time()) if unknown else ""  # other code each time: nothing to go on with
    parts = [commit, begun, *words, processor(), instruction_set_here()]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return root / "reports" / kind / f"{commit}-{name}.jsonl"


def read_kept(path: Path) -> list[list[LessonRun]]:
    """Read the runs that were kept, up to the first line that is damaged."""
    runs: list[list[LessonRun]] = []
    try:
        for line in path.read_text().splitlines():
            runs.append([LessonRun(**one) for one in json.loads(line)])
    except (OSError, ValueError, TypeError):  # not there, or damaged: the rest is measured again
        pass
    return runs


def _run_once(number: int, chosen: str, options: Sequence[str], root: Path) -> list[LessonRun]:
    """Run the lessons; a run that wrote no results counts as one that failed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-k", chosen, f"--kv-report-dir={folder}", *options]
        try:
            done = run_child(command, cwd=root, limit_s=RUN_LIMIT_S)
        except subprocess.TimeoutExpired:
            return [LessonRun(number, chosen, f"not done after {RUN_LIMIT_S} s", exact=False)]
        if done.returncode in NOTHING_TO_RUN:
            raise ConfigError(
                f'pytest -k "{chosen}" ended with exit code {done.returncode}: nothing was run.\n'
                f"  looked in  {root}\n"
                f"  pytest     {done.stderr.strip() or 'said nothing of an error'}\n"
                f'To fix: call it in the tutorial\'s folder, with lessons such as "lesson2 or lesson3"'
            )
        written = Path(folder) / "results.json"
        if not written.is_file():
            return [LessonRun(number, chosen, "no results", exact=False)]
        return lesson_runs(json.loads(written.read_text()), number)


def heading() -> str:
    """Head the lines of :func:`run_line`."""
    return _row("run  lesson    outcome", HEADINGS.values())


def run_line(one: LessonRun) -> str:
    """Print what one run found of a lesson, and below it which claims did not pass.

    >>> run_line(LessonRun(2, "lesson2", "passed", False, 30.0, 0.977, 0.89))
    '  2  lesson2   passed           97.7           89.0              –     30 s, not as predicted'
    >>> print(run_line(LessonRun(2, "lesson8", "undecided", True, why="Loading pays (undecided): too noisy")))
      2  lesson8   undecided              –              –              –
         Loading pays (undecided): too noisy
    """
    row = _row(f"{one.run:>3}  {one.lesson:<9} {one.outcome}", map(_percent, _values(one)))
    seconds = "" if one.seconds is None else f"{one.seconds:>7.0f} s"
    why = f"\n     {one.why}" if one.why else ""
    return row + seconds + ("" if one.exact else ", not as predicted") + why


def summary(runs: Sequence[LessonRun], machine: str) -> list[str]:
    """Say how many runs were steady, and the worst figures of each lesson.

    >>> runs = [LessonRun(n, "lesson2", "passed", True, 9.0, rate) for n, rate in ((1, 0.977), (2, 0.976))]
    >>> for line in summary(runs, "AMX"):
    ...     print(line)
    2 of 2 lesson runs passed with every prediction exact (AMX)
    worst of                  hit rate %    TTFT drop %  its low end %
    lesson2                         97.6              –              –
    """
    good = sum(one.steady for one in runs)
    lines = [f"{good} of {len(runs)} lesson runs passed with every prediction exact ({machine})"]
    lines.append(_row("worst of", HEADINGS.values()))
    for lesson in dict.fromkeys(one.lesson for one in runs):
        columns = zip(*(_values(one) for one in runs if one.lesson == lesson), strict=True)
        worst = [min((value for value in column if value is not None), default=None) for column in columns]
        lines.append(_row(lesson, map(_percent, worst)))
    return lines


def _values(one: LessonRun) -> list[float | None]:
    return [getattr(one, name) for name in HEADINGS]


def _row(words: str, cells: Iterable[str]) -> str:
    return f"{words:<21}" + "".join(f"{cell:>15}" for cell in cells)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
