"""The errors of settings."""

from __future__ import annotations


class ConfigError(ValueError):
    """A setting that cannot work; the message says what to do. Found before any server starts."""


class MissingExtraError(RuntimeError):
    """What was asked for needs packages of an extra; the message names it, and what is missing."""
