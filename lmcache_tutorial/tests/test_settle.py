"""Waiting for counters: what counts as settled, and what is said when it does not settle."""

from dataclasses import replace
from itertools import chain, repeat

import httpx
import pytest

from lmcache_tutorial.servers.counters import CountersError
from lmcache_tutorial.servers.lmcache import Cache
from lmcache_tutorial.servers.vllm import Engine
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.stack import settle as settling
from lmcache_tutorial.stack.settle import Settling
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.tests.snapshots import snapshot

START = snapshot()


def now(*, requested=1024, hit=0, chunks=4, calls=1, own=0, absent=()):
    engine = {"computed": 1100 - own, "engine": own, "ttft_sum_s": 1, "ttft_count": calls}
    cache = {"lookup_requested": requested, "lookup_hit_l1": hit, "stored_chunks": chunks}
    return snapshot(**engine, **cache, absent=absent)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves."""
    passed = [0.0]
    monkeypatch.setattr(settling.time, "monotonic", lambda: passed[0])
    monkeypatch.setattr(settling.time, "sleep", lambda s: passed.__setitem__(0, passed[0] + s))
    return passed


def reads(*snapshots):
    return iter(chain(snapshots, repeat(snapshots[-1]))).__next__


def waiting(read, writing=lambda: False, chunk=256):
    return Settling(read, chunk, writing, ["x.log"])


def stored(read, writing=lambda: False, **options):
    waiting(read, writing).stored(START, **options)


def test_a_store_has_settled_when_every_missed_chunk_is_there(clock):
    stored(reads(now(chunks=0), now(chunks=2), now(chunks=4)))
    assert clock[0] < 0.1


def test_a_chunk_is_stored_when_the_piece_of_every_gpu_is_there(clock):
    read = reads(now(chunks=4), now(chunks=7), now(chunks=8))
    replace(waiting(read), parts=2).stored(START)
    assert clock[0] == pytest.approx(0.04)


def test_a_chunk_that_is_still_written_is_waited_for(clock):
    stored(reads(now()), writing=iter([True, True, False]).__next__)
    assert clock[0] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("fewer", "options"), [({"chunks": 3, "own": 64}, {}), ({"chunks": 1}, {"parallel": True})]
)
def test_fewer_chunks_settle_only_when_they_stand_still(clock, fewer, options):
    stored(reads(now(**fewer)), **options)
    assert settling.STILL_S < clock[0] < settling.STILL_S + 0.1


@pytest.mark.parametrize("fewer", [{"chunks": 2, "own": 64}, {"chunks": 3}])
def test_dropped_chunks_are_an_error_that_names_the_memory(clock, fewer):
    with pytest.raises(
        CountersError, match=r"stored . of 4 chunks(.|\n)*--kv-lmcache-memory-gib(.|\n)*x\.log"
    ):
        stored(reads(now(**fewer)))
    assert clock[0] > settling.SETTLE_LIMIT_S


def test_calls_are_counted_when_both_servers_have_them(clock):
    late = now(requested=768)
    found = waiting(reads(late, late, now()), chunk=256).counted(START, [1100])
    assert found == now()
    assert waiting(reads(late), chunk=None).counted(START, [1100]) == late
    with pytest.raises(CountersError, match="look up 1024, its counters say 768"):
        waiting(reads(late), chunk=256).counted(START, [1100])


def test_look_ups_that_count_tails_are_waited_for_to_the_last_prompt(clock):
    """Two of three prompts of 127 tokens are more than the whole chunks of all three."""

    def counted(prompts):
        engine = {"computed": 381, "ttft_sum_s": 1, "ttft_count": 3}
        return snapshot(**engine, lookup_requested=127 * prompts, counts_tails=True, missed=64 * prompts)

    read = reads(counted(2), counted(2), counted(3))
    assert waiting(read, chunk=64).counted(START, [127] * 3) == counted(3)
    assert waiting(reads(counted(3)), chunk=64).counted(START, [127] * 3 + [0]) == counted(3)


def test_tokens_of_somebody_else_are_an_error_and_not_ours(clock):
    with pytest.raises(CountersError, match="somebody else uses this engine"):
        waiting(reads(now()), chunk=256).counted(START, [1000])


def test_more_than_was_asked_is_an_error_for_calls_side_by_side_too(clock):
    with pytest.raises(CountersError, match="usage counts 1099 prompt tokens, the engine's counters 1100"):
        waiting(reads(now(calls=3)), chunk=256).counted(START, [366, 366, 367])


def test_a_look_up_that_is_not_counted_yet_is_waited_for_before_its_store(clock, monkeypatch):
    early, counted, kept = now(requested=0, chunks=0), now(chunks=0), now(chunks=4)
    read = reads(early, early, counted, counted, counted, kept)
    config = PROFILES["gpu"].stack
    with httpx.Client() as client:
        cache = Cache("lmcache", "http://lmcache", client, config.cache, 1)
        engine = Engine("vllm", "http://vllm", client, config.engine, "m")
        engine.cache = cache
        stack = Stack(config, None, (cache, engine), print, client)
    monkeypatch.setattr(Stack, "snapshot", lambda self: read())
    monkeypatch.setattr(Stack, "_writing", lambda self: False)
    stack.settle(START, [1100])
    assert read() is kept  # it did not return while the chunks were still to come
    assert clock[0] > 0


def test_a_counter_that_is_not_there_is_named_and_no_lack_of_memory(clock):
    absent = now(chunks=0, absent=("lmcache_mp_l1_write_chunks_total",))
    with pytest.raises(CountersError, match=r"has no lmcache_mp_l1_write_chunks_total.*0\.5\.3 to 0\.5\.6"):
        stored(reads(absent))
    blind = now(requested=0, absent=("lmcache_mp_lookup_requested_tokens_total",))
    with pytest.raises(CountersError, match="no LMCache connector"):
        waiting(reads(blind), chunk=256).counted(START, [1100])


def test_a_memory_that_is_meant_to_be_too_small_may_drop_stores(clock):
    Settling(reads(now(chunks=1)), 256, lambda: False, may_drop=True).stored(START)
    assert settling.STILL_S < clock[0] < settling.STILL_S + 0.1


def test_an_eviction_is_waited_for_and_one_that_never_comes_is_an_error(clock):
    waiting(reads(now())).evicted(iter([True, True, False]).__next__)
    assert 0 < clock[0] < 0.2
    with pytest.raises(CountersError, match=r"above its watermark for 30 s(.|\n)*x\.log"):
        waiting(reads(now())).evicted(lambda: True)
