"""Waiting for counters: what counts as settled, and what is said when it does not settle."""

from itertools import chain, repeat

import pytest

from lmcache_tutorial.counters import CountersError
from lmcache_tutorial.records import Snapshot
from lmcache_tutorial.stack import settling

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
    with pytest.raises(CountersError, match=r"stored . of 4 chunks(.|\n)*--lmcache-memory-gib(.|\n)*x\.log"):
        stored(reads(now(**fewer)))
    assert clock[0] > settling.SETTLE_LIMIT_S


def test_calls_are_counted_when_both_servers_have_them(clock):
    late = now(requested=768)
    found = settling.counted(reads(late, late, now()), START, [1100], chunk=256)
    assert found == now()
    assert settling.counted(reads(late), START, [1100], chunk=None) == late
    with pytest.raises(CountersError, match="look up 1024, its counters say 768"):
        settling.counted(reads(late), START, [1100], chunk=256)
