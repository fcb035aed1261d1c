"""The table of options -> those of pytest and of its ini file, and back to the values that were given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from ..settings.errors import ConfigError
from ..settings.options import RUN_OPTIONS, Option, RunOptions
from ..settings.paths import user_path
from ..settings.spelling import INI_PREFIX, PYTEST, Spelling

INI_TYPES: dict[type, Literal["string", "bool", "int", "float"]] = {
    str: "string",
    Path: "string",
    bool: "bool",
    int: "int",
    float: "float",
}
EXPECTED = {str: "a text", Path: "a path", bool: "true or false", int: "a whole number", float: "a number"}
BAD_INI = (TypeError, ValueError, pytest.UsageError)  # which of them depends on pytest's version


def add_options(parser: pytest.Parser) -> None:
    """Add every row of the table; what is not given is ``None``, so that the ini file's value can count."""
    group = parser.getgroup("lmcache-tutorial", "LMCache tutorial")
    for row in RUN_OPTIONS:
        text = row.help_text.replace("%", "%%")  # argparse would take it for a placeholder
        group.addoption(PYTEST(row.name), dest=_key(row), default=None, help=text, **_arguments(row))
        if row.ini:
            parser.addini(_key(row), row.help_text, type=INI_TYPES[row.kind], default=None)


def given_options(config: pytest.Config) -> RunOptions:
    """Return the options of a run; the command line wins over the ini file.

    A relative folder of the report lies in the project's root, wherever pytest was called.

    Raises:
        ConfigError: a value in the ini file is of another kind, or a path names the home of nobody.
    """
    values = {row.name: _given(config, row) for row in RUN_OPTIONS}
    # What a shell makes of a command or a variable that had nothing to say. Taken for "not given", it would
    # turn a gate into a run that asks nobody.
    if empty := [name for name, value in values.items() if value == ""]:
        raise ConfigError(
            lambda option: f"{option(empty[0])} is empty.\nTo fix: give it a value, or leave it out"
        )
    options = RunOptions(**{name: value for name, value in values.items() if value is not None})
    return replace(options, report_dir=config.rootpath / user_path("report_dir", options.report_dir))


def spelling(config: pytest.Config) -> Spelling:
    """Return how this run's options were written."""
    return replace(PYTEST, in_ini=frozenset(row.name for row in RUN_OPTIONS if _is_from_ini(config, row)))


def _given(config: pytest.Config, row: Option) -> Any:
    value = config.getoption(_key(row))
    if value is None and row.ini:
        try:
            value = config.getini(_key(row))
        except BAD_INI as error:
            raise _another_kind(row, str(error)) from None
    return value if value is None or value == "" else row.kind(value)  # an empty path would be this folder


def _is_from_ini(config: pytest.Config, row: Option) -> bool:
    if not row.ini or config.getoption(_key(row)) is not None:
        return False
    try:
        return config.getini(_key(row)) is not None
    except BAD_INI:
        return True


def _another_kind(row: Option, reason: str) -> ConfigError:
    return ConfigError(lambda option: f"{option(row.name)} must be {EXPECTED[row.kind]}: {reason}.")


def _key(row: Option) -> str:
    """Name an option in the ini file, and among pytest's parsed ones."""
    return f"{INI_PREFIX}{row.name}"


def _arguments(row: Option) -> dict[str, Any]:
    if row.kind is bool:
        return {"action": "store_true"}
    if row.alone:
        return {"nargs": "?", "const": row.alone, "metavar": row.value_words}
    return {"type": str if row.kind is Path else row.kind, "metavar": row.value_words}
