"""SIGTERM and SIGHUP as an orderly interrupt."""

from __future__ import annotations

import pytest

from ..machine.children import interrupted_by_signals


def orderly_signals(config: pytest.Config) -> None:
    """Turn SIGTERM and SIGHUP into the interrupt that lets pytest tear everything down."""
    for restore in interrupted_by_signals():
        config.add_cleanup(restore)
