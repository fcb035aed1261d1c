"""Which colour a series, an arm or a part of a bar has: who served it, on every chart the same.

Colours are placeholders that the page's style sheet resolves, so that a chart follows the theme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..quantities.sources import KEYS, NEUTRAL, SOURCES, UNTOLD

Keys = Mapping[str, str]
"""Series, arm or part -> who served it, a key of :data:`sources.KEYS`."""
INK, PAPER = "#0a0b0c", "#0a0b0d"
PARTS = ("part-1", "part-2", "part-3", "part-4")
# Key -> placeholder; the page's style sheet has a variable of the key's name.
COLOURS = {key: f"#0a0b{number:02x}" for number, key in enumerate([*KEYS, *PARTS], 32)}
VARIABLES = {INK: "var(--ink)", PAPER: "var(--card)"} | {
    colour: f"var(--{key.replace('_', '-')})" for key, colour in COLOURS.items()
}
KEY_OF = {name: key for key, name in SOURCES.items()} | {
    "prefill": "computed",
    UNTOLD: NEUTRAL,
}  # part of a bar -> source


def part_keys(parts: Sequence[str], keys: Keys) -> dict[str, str]:
    """Choose the colour of each part of a bar: its source, else one that no source has.

    >>> part_keys(["prefill", "queue"], {})
    {'prefill': 'computed', 'queue': 'part-1'}
    """
    others = iter(PARTS * len(parts))
    return {part: keys.get(part) or KEY_OF.get(part) or next(others) for part in parts}
