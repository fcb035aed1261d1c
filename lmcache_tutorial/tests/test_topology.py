"""What a stack is made of: entries that name each other, the kinds that are kept by name, their drawing."""

import json
from dataclasses import asdict, replace

import pytest

from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.topologies import TOPOLOGIES
from lmcache_tutorial.settings.topology import CacheConfig, EngineConfig, StackConfig, TierConfig
from lmcache_tutorial.stack.drawing import draw
from lmcache_tutorial.stack.kept_state import KeptState, StackError
from lmcache_tutorial.stack.start import named

ONE = PROFILES["cpu"].stack


def test_entries_name_only_what_is_there():
    with pytest.raises(ValueError, match="names tiers"):
        StackConfig("cpu", "m", caches=(CacheConfig(tiers=(0,)),))
    with pytest.raises(ValueError, match="names cache 1 of 1"):
        StackConfig("cpu", "m", engines=(EngineConfig(cache=1),))
    with pytest.raises(ValueError, match="chunks of one size"):
        StackConfig("cpu", "m", caches=(CacheConfig(), CacheConfig(chunk_tokens=128)))
    one = CacheConfig(tiers=(0,))
    assert StackConfig("cpu", "m", caches=(one,), tiers=(TierConfig("file_tier"),)).cache is one


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_kept_topology_is_read_back_from_its_state_and_drawn_whole(name):
    config = TOPOLOGIES[name](ONE)
    state = KeptState("id", json.loads(json.dumps(asdict(config))), None, (), ())
    assert state.topology == config
    drawn = list(draw(config, lambda name: "here"))
    assert {line.split()[0] for line in drawn} == {name for name, _ in named(config)}
    assert sum("here" in line for line in drawn) == len(list(named(config)))


def test_what_another_version_wrote_is_one_error():
    told = json.loads(json.dumps(asdict(ONE)))
    with pytest.raises(StackError, match="another version of this suite"):
        _ = KeptState("id", {**told, "engines": [{"wheels": 4}]}, None, (), ()).topology
    with pytest.raises(StackError, match="another version of this suite"):
        _ = KeptState("id", {}, None, (), ()).topology


def test_what_nobody_asks_is_drawn_too():
    config = replace(ONE.with_engines(cache=None), tiers=(TierConfig("file_tier"),))
    assert list(draw(config)) == ["vllm", "lmcache", "file_tier"]
