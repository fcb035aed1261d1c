"""The kinds of stacks that can be kept by name: ``lmcache-tutorial up --topology NAME``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from .topology import RouterConfig, StackConfig, TierConfig

ONE = "one"


def _with_files(one: StackConfig) -> StackConfig:
    return replace(one, caches=(replace(one.cache, tiers=(0,)),), tiers=(TierConfig("file_tier"),))


def _two_engines(one: StackConfig) -> StackConfig:
    return replace(one, engines=one.side_by_side(2))


def _two_caches(one: StackConfig) -> StackConfig:
    """Give each of two engines an LMCache server of its own, and both the same Valkey."""
    cache = replace(one.cache, tiers=(0,))
    first, second = one.side_by_side(2)
    engines = (first, replace(second, cache=1))
    return replace(one, engines=engines, caches=(cache, cache), tiers=(TierConfig("valkey"),))


def _routed(one: StackConfig) -> StackConfig:
    return replace(_two_engines(one), router=RouterConfig("vllm_router"))


TOPOLOGIES: Mapping[str, Callable[[StackConfig], StackConfig]] = {
    ONE: lambda one: one,
    "files": _with_files,
    "two-engines": _two_engines,
    "valkey": _two_caches,
    "routed": _routed,
}
"""Name -> what it makes of a stack of one engine and one cache."""
