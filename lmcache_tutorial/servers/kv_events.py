"""vLLM's KV-cache events: one message of its ZMQ publisher -> what it tells. Pure; vLLM is not imported.

A message has three frames: a topic, a sequence number (8 bytes, big end first) and a payload in msgpack. The
payload is an array of a time, the events, and perhaps a data-parallel rank. An event is a map with its kind
under ``type`` (vLLM 0.32), or an array that begins with its kind (earlier). The source is
``distributed/kv_events.py`` of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OWN = "GPU"  # an engine's name for its own prefix cache, on a CPU too
LMCACHE = "CPU"  # how LMCache's connector names the memory of its server
SEQUENCE_BYTES = 8
SHOWN_BYTES = 40

BlockHash = int | bytes
ExtraKeys = tuple[Any, ...] | None

# The order of the fields where an event is an array; one that is missing at the end has its default.
STORED_FIELDS = (
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
)
REMOVED_FIELDS = ("block_hashes", "medium")


class KVEventsError(RuntimeError):
    """Events could not be heard or read, or some are missing; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Blocks that are held from now on, one after the other in a prompt.

    ``parent`` is the hash of the block before the first, ``None`` at a prompt's start. ``tokens`` are the ids
    of all of these blocks together, and one block has ``block_tokens`` of them. ``extra_keys`` has, for each
    block, what else is in its hash, such as a cache salt (in a prompt's first block alone); it is empty where
    nothing is told of it.
    """

    hashes: tuple[BlockHash, ...]
    parent: BlockHash | None
    tokens: tuple[int, ...]
    block_tokens: int
    medium: str = OWN
    extra_keys: tuple[ExtraKeys, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """Blocks that are no longer held on a medium."""

    hashes: tuple[BlockHash, ...]
    medium: str = OWN


@dataclass(frozen=True, slots=True)
class Cleared:
    """An engine has emptied its own prefix cache. It tells so in its next step, with another request."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a kind that this module does not know."""

    kind: str


Event = Stored | Removed | Cleared | Unknown


@dataclass(frozen=True, slots=True)
class Batch:
    """One message: what an engine did in one step. ``sequence`` counts an engine's messages from 0."""

    sequence: int
    time_s: float
    events: tuple[Event, ...]
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class _StoredForm:
    block_hashes: tuple[int | bytes, ...]
    parent_block_hash: int | bytes | None
    token_ids: tuple[int, ...]
    block_size: int
    medium: str | None = None
    extra_keys: tuple[tuple[Any, ...] | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class _RemovedForm:
    block_hashes: tuple[int | bytes, ...]
    medium: str | None = None


def decode(frames: Sequence[bytes]) -> Batch:
    """Read one message.

    Args:
        frames: its three frames, as ZMQ delivers them.

    Returns:
        The batch. A field that is not known is left out, and an event of an unknown kind is :class:`Unknown`.

    Raises:
        KVEventsError: it has another form; vLLM publishes what this suite cannot read.
    """
    import msgspec  # comes with the engine; the base install does without

    try:
        _, sequence, payload = frames
        if len(sequence) != SEQUENCE_BYTES:
            raise ValueError(f"the sequence number has {len(sequence)} bytes")
        time_s, events, *more = msgspec.msgpack.decode(payload, type=tuple[Any, ...])
        return Batch(
            sequence=int.from_bytes(sequence, "big"),
            time_s=msgspec.convert(time_s, float),
            events=tuple(_event(told) for told in msgspec.convert(events, list[dict[str, Any] | list[Any]])),
            rank=msgspec.convert(more[0], int | None) if more else None,
        )
    except (msgspec.MsgspecError, LookupError, ValueError) as error:
        shown = " | ".join(repr(frame[:SHOWN_BYTES]) for frame in frames)
        raise KVEventsError(
            f"a message of KV events could not be read: {error}.\n"
            f"  checked  its frames, {shown}\n"
            "To fix: use vLLM 0.26 to 0.32, whose form this suite reads"
        ) from error


def _event(told: dict[str, Any] | list[Any]) -> Event:
    """Read one event."""
    import msgspec

    kind = told["type"] if isinstance(told, dict) else told[0]
    # ``builtin_types``: bytes come as bytes; else a text would be taken for base64.
    if kind == "BlockStored":
        return _stored(msgspec.convert(_named(told, STORED_FIELDS), _StoredForm, builtin_types=(bytes,)))
    if kind == "BlockRemoved":
        removed = msgspec.convert(_named(told, REMOVED_FIELDS), _RemovedForm, builtin_types=(bytes,))
        return Removed(removed.block_hashes, removed.medium or OWN)
    return Cleared() if kind == "AllBlocksCleared" else Unknown(str(kind))


def _named(told: dict[str, Any] | list[Any], fields: Sequence[str]) -> dict[str, Any]:
    """Give the fields of an array their names; there may be fewer or more."""
    return told if isinstance(told, dict) else dict(zip(fields, told[1:], strict=False))


def _stored(told: _StoredForm) -> Stored:
    if told.block_size < 1:
        raise ValueError(f"a block of {told.block_size} tokens")
    return Stored(
        hashes=told.block_hashes,
        parent=told.parent_block_hash,
        tokens=told.token_ids,
        block_tokens=told.block_size,
        medium=told.medium or OWN,
        extra_keys=tuple(_fixed(keys) for keys in told.extra_keys or ()),
    )


def _fixed(value: Any) -> Any:
    """Turn lists into tuples, down to the innermost."""
    return tuple(_fixed(item) for item in value) if isinstance(value, list | tuple) else value
