"""Snapshots of a stack of one engine and one cache, from plain numbers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lmcache_tutorial.servers.counters import CacheCounters, EngineCounters, Snapshot

OF_THE_ENGINE = {field.name for field in fields(EngineCounters)}


def snapshot(**counts: Any) -> Snapshot:
    """Make a snapshot; what is not named is 0."""
    engine = {name: value for name, value in counts.items() if name in OF_THE_ENGINE}
    cache = {name: value for name, value in counts.items() if name not in OF_THE_ENGINE}
    return Snapshot((EngineCounters(**engine),), (CacheCounters(**cache),))
