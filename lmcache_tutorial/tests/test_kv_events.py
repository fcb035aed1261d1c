"""Messages of KV events, written by structs that have the form of vLLM's."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.servers.kv_events import (
    LMCACHE,
    OWN,
    Batch,
    Cleared,
    KVEventsError,
    Removed,
    Stored,
    Unknown,
    decode,
)


class Event(msgspec.Struct, omit_defaults=True, gc=False, tag=True):
    """As vLLM 0.32 declares it."""


class BlockStored(Event):
    block_hashes: list[bytes | int]
    parent_block_hash: bytes | int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[tuple[Any, ...] | None] | None = None
    group_idx: int | None = None
    session_id: str | None = None


class BlockRemoved(Event):
    block_hashes: list[bytes | int]
    medium: str | None
    group_idx: int | None = None


class AllBlocksCleared(Event):
    pass


class EventBatch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    ts: float
    events: list[Any]
    data_parallel_rank: int | None = None


class StoredArray(msgspec.Struct, array_like=True, omit_defaults=True, tag="BlockStored"):
    """As vLLM declared it when its events were arrays."""

    block_hashes: list[bytes | int]
    parent_block_hash: bytes | int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None


class RemovedArray(msgspec.Struct, array_like=True, omit_defaults=True, tag="BlockRemoved"):
    block_hashes: list[bytes | int]
    medium: str | None
    group_idx: int | None = None


class ClearedArray(msgspec.Struct, array_like=True, tag="AllBlocksCleared"):
    pass


def frames(*events, sequence=7, ts=1.5, rank=0):
    batch = EventBatch(ts, list(events), rank)
    return b"", sequence.to_bytes(8, "big"), msgspec.msgpack.encode(batch)


hashes = st.integers(0, 2**64 - 1) | st.binary(min_size=32, max_size=32)
mediums = st.sampled_from((OWN, LMCACHE, "STORAGE"))


@st.composite
def stored(draw):
    size, several = draw(st.integers(1, 8)), draw(st.lists(hashes, max_size=4))
    tokens = draw(st.lists(st.integers(0, 2**31), min_size=size * len(several), max_size=size * len(several)))
    keys = draw(st.lists(st.none() | st.tuples(st.text(), st.integers(0, 2**63)), max_size=len(several)))
    parent, medium = draw(st.none() | hashes), draw(mediums)
    ours = Stored(tuple(several), parent, tuple(tokens), size, medium, tuple(keys))
    return ours, BlockStored(several, parent, tokens, size, None, medium, None, keys or None, 0, "session")


@st.composite
def removed(draw):
    several, medium = draw(st.lists(hashes, max_size=4)), draw(mediums)
    return Removed(tuple(several), medium), BlockRemoved(several, medium, draw(st.none() | st.just(0)))


@settings(deadline=None)
@given(
    st.lists(stored() | removed() | st.just((Cleared(), AllBlocksCleared())), max_size=5),
    st.integers(0, 2**63),
    st.none() | st.integers(0, 7),
)
def test_what_vllm_writes_is_read(pairs, sequence, rank):
    told = decode(frames(*(theirs for _, theirs in pairs), sequence=sequence, rank=rank))
    assert told == Batch(sequence, 1.5, tuple(ours for ours, _ in pairs), rank)


def test_events_that_are_arrays_are_read_and_what_is_added_at_their_end_is_left_out():
    told = decode(
        frames(
            StoredArray([1, 2], None, [5, 6, 7, 8], 2, None, None),
            ["BlockStored", [3], 2, [9, 9], 2, None, LMCACHE, None, [["salt"]], 0, "full", "of", "news"],
            RemovedArray([1], OWN, 0),
            ClearedArray(),
        )
    )
    assert told.events == (
        Stored((1, 2), None, (5, 6, 7, 8), 2),
        Stored((3,), 2, (9, 9), 2, LMCACHE, (("salt",),)),
        Removed((1,)),
        Cleared(),
    )


def test_fields_and_kinds_that_are_not_known_break_nothing():
    told = decode(
        frames(
            {"type": "BlockRemoved", "block_hashes": [1], "medium": OWN, "reason": {"why": ["new"]}},
            {"type": "BlockMoved", "block_hashes": [1]},
            ["BlockPinned", 1, 2],
        )
    )
    assert told.events == (Removed((1,)), Unknown("BlockMoved"), Unknown("BlockPinned"))


def test_nested_extra_keys_can_be_compared_and_hashed():
    (event,) = decode(
        frames(BlockStored([1], None, [5], 1, None, OWN, None, [(("image", 3), "salt")]))
    ).events
    assert event.extra_keys == ((("image", 3), "salt"),)
    assert hash(event)


def packed(value, sequence=b"\0" * 8):
    return b"", sequence, msgspec.msgpack.encode(value)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ((b"", b"\0" * 8), "not enough values"),
        ((b"", b"\0" * 8, b"", b""), "too many values"),
        (packed([1.0, []], sequence=b"\0"), "the sequence number has 1 bytes"),
        ((b"", b"\0" * 8, b"\xc1"), "MessagePack data is malformed"),
        ((b"", b"\0" * 8, b""), "truncated"),
        (packed([1.0]), "not enough values"),
        (packed({"ts": 1.0}), "Expected `array`"),
        (packed(["late", []]), "Expected `float`"),
        (packed([1.0, "BlockStored"]), "Expected `array`"),
        (packed([1.0, ["BlockStored"]]), "Expected `object | array`"),
        (packed([1.0, [[]]]), "index out of range"),
        (packed([1.0, [{"block_hashes": [1]}]]), "type"),
        (packed([1.0, [], "first"]), "Expected `int | null`"),
        (packed([1.0, [["BlockRemoved", ["a hash"], OWN]]]), "Expected `int | bytes`"),
        (packed([1.0, [["BlockStored", [1], None]]]), "missing required field `token_ids`"),
        (packed([1.0, [["BlockStored", [1], None, [], 0, None, OWN]]]), "a block of 0 tokens"),
    ],
)
def test_a_message_of_another_form_is_one_error(message, reason):
    with pytest.raises(KVEventsError, match=r"(?s)could not be read.*checked.*To fix") as error:
        decode(message)
    assert reason in str(error.value).partition("\n")[0]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_bytes_that_mean_nothing_are_no_other_error(message):
    with pytest.raises(KVEventsError, match="could not be read"):
        decode(message)
