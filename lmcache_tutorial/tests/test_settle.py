"""Waiting for counters: what counts as settled, and what is said when it does not settle."""

from dataclasses import replace
from itertools import chain, repeat

import pytest

from lmcache_tutorial.quantities.records import Snapshot
from lmcache_tutorial.servers.counters import CountersError
from lmcache_tutorial.stack import settle as settling

START = Snapshot(computed=0, engine=0, external=0, ttft_sum_s=0, ttft_count=0)


def now(*, requested=1024, hit=0, chunks=4, calls=1, own=0):
    return Snapshot(
        computed=1100 - own, engine=own, external=0, ttft_sum_s=1, ttft_count=calls,
        lookup_requested=requested, lookup_hit_l1=hit, stored_chunks=chunks,
    )  # fmt: skip


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves."""
    passed = [0.0]
    monkeypatch.setattr(settling.time, "monotonic", lambda: passed[0])
    monkeypatch.setattr(settling.time, "sleep", lambda s: passed.__setitem__(0, passed[0] + s))
    return passed


def reads(*snapshots):
    return iter(chain(snapshots, repeat(snapshots[-1]))).__next__


def stored(read, **options):
    settling.stored(read, START, **{"chunk": 256, "writing": lambda: False, "logs": ["x.log"], **options})


def test_a_store_has_settled_when_every_missed_chunk_is_there(clock):
    stored(reads(now(chunks=0), now(chunks=2), now(chunks=4)))
    assert clock[0] < 0.1


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
    found = settling.counted(reads(late, late, now()), START, [1100], chunk=256)
    assert found == now()
    assert settling.counted(reads(late), START, [1100], chunk=None) == late
    with pytest.raises(CountersError, match="look up 1024, its counters say 768"):
        settling.counted(reads(late), START, [1100], chunk=256)


def test_tokens_of_somebody_else_are_an_error_and_not_ours(clock):
    with pytest.raises(CountersError, match="somebody else uses this engine"):
        settling.counted(reads(now()), START, [1000], chunk=256)


def test_more_than_was_asked_is_an_error_for_calls_side_by_side_too(clock):
    with pytest.raises(CountersError, match="usage counts 1099 prompt tokens, the engine's counters 1100"):
        settling.counted(reads(now(calls=3)), START, [366, 366, 367], chunk=256)


def test_a_look_up_that_is_not_counted_yet_is_waited_for_before_its_store(clock, monkeypatch):
    from lmcache_tutorial.stack import stack as running
    from lmcache_tutorial.stack.stack import Stack

    early, counted, kept = now(requested=0, chunks=0), now(chunks=0), now(chunks=4)
    read = reads(early, early, counted, counted, counted, kept)
    stack = object.__new__(Stack)
    monkeypatch.setattr(Stack, "snapshot", lambda self: read())
    monkeypatch.setattr(Stack, "_writing", lambda self: False)
    monkeypatch.setattr(Stack, "servers", ())
    stack.config, stack.engine_has_lmcache = running.PROFILES["gpu"].stack, True
    stack.settle(START, [1100])
    assert read() is kept  # it did not return while the chunks were still to come
    assert clock[0] > 0


def test_a_counter_that_is_not_there_is_named_and_no_lack_of_memory(clock):
    absent = replace(now(chunks=0), absent=("lmcache_mp_l1_write_chunks_total",))
    with pytest.raises(CountersError, match=r"has no lmcache_mp_l1_write_chunks_total.*0\.5\.3 to 0\.5\.6"):
        stored(reads(absent))
    blind = replace(now(requested=0), absent=("lmcache_mp_lookup_requested_tokens_total",))
    with pytest.raises(CountersError, match="no LMCache connector"):
        settling.counted(reads(blind), START, [1100], chunk=256)
