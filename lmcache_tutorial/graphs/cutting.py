"""Texts that are cut, so that a prompt has a wanted number of chunks."""

from __future__ import annotations

from ..prompts.documents import CorpusError, fresh
from ..stack.stack import Stack
from .reader import Reader

BEYOND_TOKENS = 8  # of a cut prompt, beyond its last chunk: a nonce may be so much shorter in another copy
STEP = 16  # characters


def cut_to_chunks(stack: Stack, text: str, question: str, chunks: float) -> str:
    """Cut a text so that its prompt has so many chunks, and a few tokens more.

    Raises:
        CorpusError: the text is too short for that.
    """
    wanted = int(chunks * stack.chunk_tokens) + BEYOND_TOKENS
    length = wanted
    while len(stack.tokenize(Reader.messages(fresh(text[:length]), question))) < wanted:
        if length > len(text):
            raise CorpusError(f"a text of {len(text):,} characters makes no prompt of {wanted:,} tokens.")
        length += STEP
    return text[:length]
