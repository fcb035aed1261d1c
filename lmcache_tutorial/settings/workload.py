"""How much work fits this machine: the prefill rate -> the sizes of the lessons' documents.

What a machine was given last is remembered, and kept until its rate has clearly changed: two runs of one
machine have the same sizes, so that their times can be compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .profiles import LessonSizes, SizeClass

HYSTERESIS = 0.25  # two shared cores scatter by about as much from one run to the next


@dataclass(frozen=True)
class Workload:
    """The sizes of a stack's documents [tokens], the prefill rate behind them [tokens/s], and why."""

    sizes: LessonSizes
    prefill_tokens_s: float
    reason: str


def fit(classes: Sequence[SizeClass], prefill_tokens_s: float, last: int | None = None) -> Workload:
    """Choose the sizes for a prefill rate.

    Args:
        classes: from the slowest to the fastest machines, one at least.
        prefill_tokens_s: the measured rate [tokens/s], above 0.
        last: the tokens of a long document in this machine's last run, if there was one: that class stays
            unless the rate lies more than a quarter outside it.

    Raises:
        ValueError: the rate is not above 0.

    >>> from lmcache_tutorial.settings.profiles import PROFILES
    >>> classes = PROFILES["cpu"].classes
    >>> [fit(classes, rate).sizes.long for rate in (780.0, 820.0)]
    [1200, 1800]
    >>> fit(classes, 820.0, last=1200).sizes.long
    1200
    """
    if not prefill_tokens_s > 0:
        raise ValueError(f"a prefill rate must be above 0 tokens/s; got {prefill_tokens_s}")
    places = range(len(classes))
    # The slowest class that is left takes also what is slower than it was made for.
    place = max((n for n in places if classes[n].from_tokens_s <= prefill_tokens_s), default=0)
    kept = next((n for n in places if classes[n].sizes.long == last), None)
    if kept is not None and kept != place:
        below = classes[kept].from_tokens_s * (1 - HYSTERESIS)
        above = classes[kept + 1].from_tokens_s * (1 + HYSTERESIS) if kept + 1 < len(classes) else None
        if prefill_tokens_s >= below and (above is None or prefill_tokens_s < above):
            place = kept
    sizes = classes[place].sizes
    return Workload(sizes, prefill_tokens_s, _reason(classes, place, prefill_tokens_s, stayed=place == kept))


def expected(classes: Sequence[SizeClass], last: int | None, dtype: str) -> LessonSizes:
    """Return the sizes that a machine will probably have, where no engine has been measured yet.

    Those of its last run; else the largest where bf16 has its instructions, and the smallest elsewhere.

    Args:
        classes: from the slowest to the fastest machines.
        last: the tokens of a long document in this machine's last run, if there was one.
        dtype: the number format that was chosen for this processor.
    """
    remembered = [one.sizes for one in classes if one.sizes.long == last]
    return remembered[0] if remembered else classes[-1 if dtype == "bfloat16" else 0].sizes


def _reason(classes: Sequence[SizeClass], place: int, rate: float, *, stayed: bool) -> str:
    if len(classes) == 1:
        return "the profile has one set of sizes"
    about = classes[place].sizes.long / rate
    why = f"at this rate a cold long prompt takes about {about:.1f} s"
    return why + ", and this machine's last run had the same sizes" if stayed else why


class Memory:
    """Remembers the class of each kind of stack on this machine, in one small file."""

    def __init__(self, path: Path, parts: Sequence[str]) -> None:
        """Use a file; ``parts`` is what decides the speed: processor, instruction set, format, model."""
        self._path = path
        self._key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def last(self) -> int | None:
        """Return the tokens of a long document in the last run; ``None`` if there was none."""
        found = self._read().get(self._key)
        return found if isinstance(found, int) else None

    def keep(self, workload: Workload) -> None:
        """Write the class down; a folder that cannot be written costs the memory, not the run."""
        text = json.dumps({**self._read(), self._key: workload.sizes.long})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".partial")
            partial.write_text(text)
            partial.rename(self._path)
        except OSError:
            return

    def _read(self) -> dict[str, object]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
