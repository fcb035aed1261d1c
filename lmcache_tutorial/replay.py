"""A log asked again in the mind: tokens of many texts, and the blocks that a cache would hold of them."""

from __future__ import annotations

import re
from collections import OrderedDict

from .rendering import Renderer

MEMO_TOKENS = 2_000_000


class BlockMemory:
    """The blocks that a cache would hold, by the hash of all tokens up to their end."""

    def __init__(self, block: int, limit: int) -> None:
        """Remember at most ``limit`` blocks of ``block`` tokens."""
        self._block, self._limit = block, limit
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self.forgotten = 0

    def visit(self, ids: list[int]) -> int:
        """Count the tokens of the longest known prefix in whole blocks, and remember all blocks."""
        known, chain, all_known = 0, 0, True
        for begin in range(0, len(ids) - self._block + 1, self._block):
            chain = hash((chain, *ids[begin : begin + self._block]))
            if chain in self._blocks:
                self._blocks.move_to_end(chain)
            else:
                all_known = False
                self._blocks[chain] = None
            known += self._block * all_known
        while len(self._blocks) > self._limit:
            self._blocks.popitem(last=False)
            self.forgotten += 1
        return known


class Encoder:
    """Tokenizes texts in batches; what stands between two special tokens is tokenized once and remembered.

    Special tokens cut a text before anything else happens to it, so the pieces are independent.
    """

    def __init__(self, renderer: Renderer) -> None:
        """Use a renderer's tokenizer."""
        self._tokenizer = renderer.tokenizer
        added = list(self._tokenizer.get_added_tokens_decoder().values())
        plain = not any(
            token.lstrip or token.rstrip or token.single_word or token.normalized for token in added
        )
        words = [re.escape(token.content) for token in added] if plain else []
        self._cut = re.compile(f"({'|'.join(sorted(words, key=len, reverse=True))})") if words else None
        self._memo: dict[str, list[int]] = {}
        self._held = 0

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Tokenize texts, without adding special tokens."""
        split = [[p for p in self._cut.split(text) if p] if self._cut else [text] for text in texts]
        missing = list(
            dict.fromkeys(piece for pieces in split for piece in pieces if piece not in self._memo)
        )
        encoded = self._tokenizer.encode_batch_fast(missing, add_special_tokens=False)
        found = {piece: one.ids for piece, one in zip(missing, encoded, strict=True)}
        result = [
            [i for piece in pieces for i in (found.get(piece) or self._memo.get(piece, []))]
            for pieces in split
        ]
        self._held += sum(map(len, found.values()))
        if self._held > MEMO_TOKENS:
            self._memo, self._held = {}, 0
        self._memo |= found
        return result
