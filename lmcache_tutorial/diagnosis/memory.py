"""A log asked again in the mind: the tokens of many texts, each encoded once."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence

from tokenizers import Tokenizer

from ..prompts.rendering import Renderer
from .messages import IMAGE

MEMO_TOKENS = 2_000_000
IMAGE_TOKENS = 256  # an image's tokens depend on the model; from about this many up
IMAGE_IDS = 1 << 40  # above all real token ids
PROBES = ("Hello world", " led by a space", "\nled by a line", "12, 13", "ends with a space ", "{}", "ä日本")


class Encoder:
    """Tokenizes texts in batches; what stands between two special tokens is tokenized once and remembered.

    That needs a tokenizer for which a text's pieces, cut at its special tokens, are independent. Whether they
    are is tried, once for a tokenizer; one with a Metaspace (SentencePiece's) is never cut.
    """

    def __init__(self, renderer: Renderer) -> None:
        """Use a renderer's tokenizer."""
        self._tokenizer = tokenizer = renderer.tokenizer
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.content]
        words = sorted(map(re.escape, added), key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(words)})") if words and _independent(tokenizer, added) else None
        self._memo: OrderedDict[str, list[int]] = OrderedDict()
        self._held = 0
        self._front, self._back = _special(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts, without adding special tokens; an image's mark becomes tokens of its own."""
        split = [self._pieces(text) for text in texts]
        missing = [p for pieces in split for p in dict.fromkeys(pieces) if p not in self._memo]
        missing = list(dict.fromkeys(missing))
        encoded = self._tokenizer.encode_batch_fast(missing, add_special_tokens=False)
        found = {piece: one.ids for piece, one in zip(missing, encoded, strict=True)}
        result = []
        for pieces in split:
            ids: list[int] = []
            for piece in pieces:
                ids += found[piece] if piece in found else self._memo[piece]
            result.append(ids)
        if self._cut:
            self._remember(found)
        return result

    def with_special(self, ids: list[int]) -> list[int]:
        """Add the special tokens that the tokenizer puts around a text."""
        return [*self._front, *ids, *self._back]

    def _pieces(self, text: str) -> list[str]:
        pieces = [piece for piece in self._cut.split(text) if piece] if self._cut else [text]
        if "\ue001" not in text:
            return pieces
        cut = [part for piece in pieces for part in re.split(f"({IMAGE.pattern})", piece) if part]
        for part in cut:
            if IMAGE.fullmatch(part) and part not in self._memo:
                self._remember({part: [IMAGE_IDS | int(part[1:9], 16)] * IMAGE_TOKENS})
        return cut

    def _remember(self, found: dict[str, list[int]]) -> None:
        self._memo.update(found)
        self._held += sum(map(len, found.values()))
        while self._held > MEMO_TOKENS and len(self._memo) > 1:
            self._held -= len(self._memo.popitem(last=False)[1])


def _independent(tokenizer: Tokenizer, added: Sequence[str]) -> bool:
    """Try whether the pieces between special tokens can be tokenized alone, each special token once."""
    shape = f"{tokenizer.normalizer!r} {tokenizer.pre_tokenizer!r}"
    if "Metaspace" in shape or "Prepend" in shape:
        return False
    texts: list[tuple[str, ...]] = []
    for number, token in enumerate(added):
        before, behind = PROBES[number % len(PROBES)], PROBES[(number + 1) % len(PROBES)]
        texts.append((before, token, behind, token, token, before))
    # All spaces and lines on both sides of one token, which stands for those that are like it.
    texts += [(one, added[0], other) for one in PROBES for other in PROBES]
    whole = tokenizer.encode_batch_fast(["".join(parts) for parts in texts], add_special_tokens=False)
    alone = [tokenizer.encode_batch_fast(list(parts), add_special_tokens=False) for parts in texts]
    return all(
        one.ids == [i for piece in pieces for i in piece.ids]
        for one, pieces in zip(whole, alone, strict=True)
    )


def _special(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts in front of a text and behind it."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    begin = next((n for n in range(len(whole)) if whole[n : n + len(plain)] == plain), 0)
    return whole[:begin], whole[begin + len(plain) :]
