"""How much memory prompts of one length take, planned before it is used."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .memories import GIB, object_bytes

WATERMARK = 0.8  # of LMCache's memory, before it evicts
STEP_GIB = 2**-20  # a plan is rounded up to this, so that it can be written in a few digits


@dataclass(frozen=True, slots=True)
class Room:
    """What prompts of one length take of an engine's blocks, of LMCache's memory, and of a tier behind it.

    >>> room = Room(prompt_tokens=1230, block_tokens=32, chunk_tokens=64, kv_bytes_per_token=23_040)
    >>> room.engine_blocks(2), room.chunks, room.document_bytes
    (79, 19, 28016640)
    >>> room.cache_gib(5) * GIB > 5 * room.document_bytes / WATERMARK
    True
    """

    prompt_tokens: int
    block_tokens: int
    chunk_tokens: int
    kv_bytes_per_token: int

    @property
    def chunks(self) -> int:
        """Whole chunks of one prompt; a part of one is not kept."""
        return self.prompt_tokens // self.chunk_tokens

    @property
    def document_bytes(self) -> int:
        """What LMCache keeps of one prompt [bytes]."""
        return self.kept_bytes(self.prompt_tokens)

    def kept_bytes(self, prompt_tokens: int) -> int:
        """Compute what LMCache keeps of a prompt of another length: its whole chunks [bytes]."""
        return prompt_tokens // self.chunk_tokens * self.chunk_tokens * self.kv_bytes_per_token

    def engine_blocks(self, prompts: int) -> int:
        """Count the engine's blocks for so many prompts with an answer of one token, and its own one."""
        return 1 + prompts * math.ceil(self.prompt_tokens / self.block_tokens)

    def cache_gib(self, prompts: int) -> float:
        """Compute the memory in which LMCache keeps so many prompts and stays below its watermark [GiB]."""
        objects = math.floor(prompts * self.chunks / WATERMARK) + 1
        return _rounded_up(objects * object_bytes(self.chunk_tokens, self.kv_bytes_per_token) / GIB)

    def tier_gib(self, prompts: int) -> float:
        """Compute the capacity of a tier that keeps so many prompts, and no more [GiB]."""
        return _rounded_up(prompts * self.document_bytes / GIB)


def _rounded_up(gib: float) -> float:
    return math.ceil(gib / STEP_GIB) * STEP_GIB
