"""Paths that a user names."""

from __future__ import annotations

import os
from pathlib import Path

from ..machine.files import write_atomically
from .errors import ConfigError


def user_path(option: str, text: str | Path) -> Path:
    """Read a path as a shell would: ``~`` is the user's home, also behind an ``=``, where shells leave it.

    ``option`` is the plain name of the option that names it.

    >>> user_path("report_dir", "reports")
    PosixPath('reports')

    Raises:
        ConfigError: it names the home of nobody.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(
            lambda spelled: (
                f"{spelled(option)} is {str(text)!r}, but no user of that name has a home here.\n"
                f"To fix: write the path without ~"
            )
        ) from None


def write_user_file(path: Path, text: str) -> None:
    """Write a file that a user named, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path} cannot be written: {reason}.\nTo fix: name a file of yours") from None


def writable_folder(path: Path) -> None:
    """Make the report's folder and prove that a file can be written into it.

    Raises:
        ConfigError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            lambda option: (
                f"{option('report_dir')} is {path}, which cannot be written: {reason}.\n"
                f"To fix: name a folder of yours, for example {option('report_dir', 'reports')}"
            )
        ) from None
