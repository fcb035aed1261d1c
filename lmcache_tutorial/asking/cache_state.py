"""What the caches held of a prompt when it was asked: stated beforehand, and proven by who served it."""

from __future__ import annotations

from typing import Literal

from ..quantities.records import TokenSources

Start = Literal["cold", "engine", "lmcache", "as it is"]
"""Nothing; the engine's own cache a part; LMCache alone a part; whatever they held."""


class CacheStateError(AssertionError):
    """A cache did not hold what the measurement stated; the message says what it held."""


def check_held(start: Start, served: TokenSources, what: str) -> None:
    """Check that a prompt was served as its start says.

    Where nobody tells who served it, ``engine`` is held to be true if anything was reused.

    Args:
        start: what the caches were to hold of it.
        served: who served its tokens.
        what: what the message calls the request.

    Raises:
        CacheStateError: they held something else.

    >>> check_held("cold", TokenSources(10, 0, 0, 0), "the call")
    """
    held = {
        "cold": served.reused == 0,
        "engine": served.engine > 0 or served.untold > 0,
        "lmcache": served.engine == served.untold == 0 and served.lmcache > 0,
        "as it is": True,
    }
    if not held[start]:
        raise CacheStateError(f"{what} was to start from {start!r}, but its tokens came so: {served}")
