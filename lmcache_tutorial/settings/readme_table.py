"""The table of options as README.md shows it; `python .ci/readme_tables.py` puts it there."""

from __future__ import annotations

from .options import RUN_OPTIONS, Option
from .spelling import COMMAND, INI_PREFIX, PYTEST

HEAD = ("pytest", "ini file", "`lmcache-tutorial`", "meaning", "default")


def options_table() -> str:
    """Build the table in Markdown: how each option is written where it applies, its meaning, its default."""
    lines = [_line(HEAD), "|---" * len(HEAD) + "|"]
    for row in RUN_OPTIONS:
        in_ini = f"`{INI_PREFIX}{row.name}`" if row.ini else "–"
        commands = f"`{COMMAND(row.name)}` ({', '.join(row.commands)})" if row.commands else "–"
        lines.append(_line((_written(row), in_ini, commands, row.help, row.default_words)))
    return "\n".join(lines)


def _written(row: Option) -> str:
    if not row.choices:
        return f"`{PYTEST(row.name)}`"
    with_value = f"`{PYTEST(row.name, row.value_words)}`"
    return f"`{PYTEST(row.name)}`, {with_value}" if row.alone else with_value


def _line(cells: tuple[str, ...]) -> str:
    # A bar within a cell would end it.
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
