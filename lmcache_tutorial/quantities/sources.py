"""Who can serve a prompt token: the keys, their names, and the words that a summary shows beside a rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .records import TokenSources

SOURCES: Mapping[str, str] = {
    "engine": "engine's own cache",
    "lmcache_l1": "LMCache memory",
    "lmcache_l2": "LMCache second tier",
    "computed": "prefilled",
}
"""Key -> name, in the order in which a prompt is served from its front to its end."""
UNTOLD = "reused, not told by whom"
NEUTRAL, PREDICTED = "neutral", "predicted"
KEYS: Mapping[str, str] = {**SOURCES, NEUTRAL: "other", PREDICTED: "predicted"}
"""What a lesson may say of a series or an arm: a source, none, or that it was predicted."""


class SourceError(ValueError):
    """A chart names a source that does not exist, or an arm that it does not draw."""


def checked(stated: Mapping[str, str], drawn: Iterable[str], chart: str) -> dict[str, str]:
    """Return what a lesson states about a chart's series, each of them a key of :data:`KEYS`.

    Raises:
        SourceError: a series is not drawn, or what is said of it is no key.

    >>> checked({"cold": "computed"}, ["cold", "warm"], "TTFT")
    {'cold': 'computed'}
    """
    drawn = list(drawn)
    for series, key in stated.items():
        if series not in drawn:
            raise SourceError(
                f"The chart “{chart}” has no series “{series}”; it draws: {', '.join(drawn)}.\n"
                "To fix: name in served_by only what the chart draws."
            )
        if key not in KEYS:
            raise SourceError(
                f"The chart “{chart}” says of “{series}” that “{key}” served it, which is no source.\n"
                f"To fix: use one of {', '.join(KEYS)}."
            )
    return dict(stated)


def told(tokens: TokenSources) -> dict[str, int | None]:
    """Write down who served a window: its parts by the keys of :data:`SOURCES`, ``None`` where nobody tells.

    Then ``untold`` has what was reused.

    >>> told(TokenSources(7, 80, 20, 0))
    {'engine': 80, 'lmcache_l1': 20, 'lmcache_l2': 0, 'computed': 7}
    >>> told(TokenSources(7, 0, 0, 0, untold=96))
    {'engine': None, 'lmcache_l1': None, 'lmcache_l2': None, 'computed': 7, 'untold': 96}
    """
    if not tokens.untold:
        return {key: getattr(tokens, key) for key in SOURCES}
    silent: dict[str, int | None] = {key: None for key in SOURCES if key != "computed"}
    return silent | {"computed": tokens.computed, "untold": tokens.reused}


def source(tokens: TokenSources) -> str:
    """Name who served most of what a window reused: a key of :data:`KEYS`, the neutral one if untold.

    >>> source(TokenSources(7, 80, 20, 0)), source(TokenSources(7, 0, 0, 0, untold=96))
    ('engine', 'neutral')
    >>> source(TokenSources(7, 0, 0, 0))
    'computed'
    """
    if tokens.untold:
        return NEUTRAL
    reused = {key: getattr(tokens, key) for key in SOURCES if key != "computed"}
    return max(reused, key=reused.__getitem__) if tokens.reused else "computed"


def served_by(tokens: Mapping[str, int | None] | None) -> str:
    """Say who served the reused tokens of a window, a mixture with the share of each.

    Args:
        tokens: what :func:`told` writes; ``None`` where none were counted.

    Returns:
        The names of the sources, with their shares of the *reused* tokens where there are several.

    >>> served_by({"engine": 80, "lmcache_l1": 20, "lmcache_l2": 0, "computed": 7})
    "engine's own cache 80 %, LMCache memory 20 %"
    >>> served_by({"engine": 96, "lmcache_l1": 0, "lmcache_l2": 0, "computed": 7}), served_by(None)
    ("engine's own cache", '–')
    >>> served_by({"engine": 0, "lmcache_l1": 0, "lmcache_l2": 0, "computed": 7})
    'no cache'
    >>> served_by(told(TokenSources(7, 0, 0, 0, untold=96)))
    'not told by whom'
    """
    if not tokens or not any(tokens.values()):
        return "–"
    if tokens.get("untold"):
        return "not told by whom"
    reused = {key: count for key in SOURCES if key != "computed" and (count := tokens[key])}
    if not reused:
        return "no cache"
    if len(reused) == 1:
        return SOURCES[next(iter(reused))]
    total = sum(reused.values())
    return ", ".join(f"{SOURCES[key]} {_share(count / total)}" for key, count in reused.items())


def _share(fraction: float) -> str:
    """Print a share of a mixture: whole per cent, and never 0 or 100, since there is more than one part.

    >>> _share(0.2), _share(0.001), _share(0.999)
    ('20 %', 'under 1 %', 'over 99 %')
    """
    if fraction < 0.005:
        return "under 1 %"
    return "over 99 %" if fraction >= 0.995 else f"{fraction:.0%}".replace("%", " %")
