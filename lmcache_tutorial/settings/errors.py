"""The one error of settings."""

from __future__ import annotations


class ConfigError(ValueError):
    """A setting that cannot work; the message says what to do. Found before any server starts."""
