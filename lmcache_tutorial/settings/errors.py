"""The errors of settings."""

from __future__ import annotations

from collections.abc import Callable

from .spelling import COMMAND, Spelling


class ConfigError(ValueError):
    """A setting that cannot work; the message says what to do. Found before any server starts.

    A check knows an option by its plain name; whoever asked wrote ``--kv-stack``, ``--stack`` or a line
    of the ini file. So the message may be a function of the spelling, which the catcher knows.
    """

    def __init__(self, message: str | Callable[[Spelling], str]) -> None:
        super().__init__(message)
        self._message = message

    def words(self, spelling: Spelling) -> str:
        """Return the message, with options as the asker writes them."""
        return self._message if isinstance(self._message, str) else self._message(spelling)

    def __str__(self) -> str:
        """Return the message, with options as on the command line of ``lmcache-tutorial``."""
        return self.words(COMMAND)


class MissingExtraError(RuntimeError):
    """What was asked for needs packages of an extra; the message names it, and what is missing."""
