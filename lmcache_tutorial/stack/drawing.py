"""A topology as a picture of text: what stands in front of what."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..settings.topology import StackConfig
from .start import named


def draw(config: StackConfig, about: Callable[[str], str] = lambda name: "") -> Iterator[str]:
    """Yield one line for each program of a stack, under what asks it.

    A cache or a tier that several ask is drawn where it is first asked; after that only its name.

    Args:
        config: the stack.
        about: what stands behind a program's name.

    >>> from lmcache_tutorial.settings.topologies import TOPOLOGIES
    >>> for line in draw(TOPOLOGIES["valkey"](StackConfig("cpu", "m"))):
    ...     print(line)
    vllm
      lmcache
        valkey
    vllm-2
      lmcache-2
        valkey (as above)
    """
    names = [name for name, _ in named(config)]
    tiers, rest = names[: len(config.tiers)], names[len(config.tiers) :]
    caches, engines = rest[: len(config.caches)], rest[len(config.caches) :]
    drawn: set[str] = set()

    def row(depth: int, name: str) -> str:
        again = name in drawn
        drawn.add(name)
        return f"{'  ' * depth}{name}{' (as above)' if again else f'  {about(name)}'}".rstrip()

    depth = 1 if config.router else 0
    if config.router:
        yield row(0, names[-1])
    for name, engine in zip(engines, config.engines, strict=False):  # the router is the last name
        yield row(depth, name)
        if engine.cache is None:
            continue
        known = caches[engine.cache] in drawn
        yield row(depth + 1, caches[engine.cache])
        for place in () if known else config.caches[engine.cache].tiers:
            yield row(depth + 2, tiers[place])
    for name in (*caches, *tiers):
        if name not in drawn:
            yield row(0, name)
