"""JUnit's file: our path for it, and secrets taken out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..machine.files import write_atomically
from ..settings.secrets import redact


def take_secrets_out(path: Path) -> None:
    """Replace secrets in JUnit's file."""
    write_atomically(path, redact(path.read_text()))


def start_junit(config: pytest.Config, folder: Path) -> Any:
    """Return pytest's JUnit writer; start it on our own path if none was asked for.

    ``None`` where the user has switched it off (``-p no:junitxml``).
    """
    junit: Any = config.pluginmanager.get_plugin("junitxml")
    if junit is None:
        return None
    if not config.option.xmlpath:
        config.option.xmlpath = str(folder / "junit.xml")
        junit.pytest_configure(config)
        _junit_writer(config).pytest_sessionstart()
    return _junit_writer(config)


def _junit_writer(config: pytest.Config) -> Any:
    return next(
        (plugin for plugin in config.pluginmanager.get_plugins() if type(plugin).__name__ == "LogXML"), None
    )
