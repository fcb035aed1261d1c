"""Blocks are forgotten in vLLM's order; texts are cut only where that changes no token."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from lmcache_tutorial.diagnosis.memory import IMAGE_TOKENS, BlockMemory, Encoder
from lmcache_tutorial.diagnosis.messages import IMAGE_MARK
from lmcache_tutorial.prompts.rendering import Renderer
from lmcache_tutorial.tests.test_prompts import LETTERS, byte_renderer

BLOCK = 4


class Pool:
    """vLLM's block pool, written down as it is: a queue of the free blocks, some of which have a hash."""

    def __init__(self, blocks: int) -> None:
        self.queue = deque(range(blocks))
        self.hashes: dict[int, tuple] = {}

    def ask(self, ids: list[int]) -> int:
        full = [tuple(ids[: end + BLOCK]) for end in range(0, len(ids) - BLOCK + 1, BLOCK)]
        held = {known: block for block, known in self.hashes.items()}
        hit = []
        for prefix in full:
            if prefix not in held:
                break
            hit.append(held[prefix])
        for block in hit:  # touched
            self.queue.remove(block)
        taken = [self.queue.popleft() for _ in range(-(-len(ids) // BLOCK) - len(hit))]
        for block in taken:
            self.hashes.pop(block, None)
        blocks = [*hit, *taken]
        for block, prefix in zip(blocks, full, strict=False):
            self.hashes[block] = prefix
        for block in reversed(blocks):  # freed, the tail first
            if block in self.hashes:
                self.queue.append(block)
            else:
                self.queue.appendleft(block)
        return len(hit) * BLOCK


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, 1), min_size=1, max_size=30).filter(lambda ids: len(ids) % BLOCK > 0),
        max_size=25,
    ),
    st.integers(8, 14),
)
def test_a_bounded_memory_knows_what_vllms_pool_would_know(prompts, blocks):
    memory, pool = BlockMemory(BLOCK, blocks), Pool(blocks)
    for prompt in prompts:
        assert memory.visit(prompt) == pool.ask(prompt)


def test_the_tail_of_a_prompt_goes_before_its_head():
    memory = BlockMemory(BLOCK, limit=6)
    old, new = list(range(16)), list(range(100, 112))
    memory.visit(old)
    memory.visit(new)  # takes three blocks, of which one was in use
    assert memory.forgotten == 1
    assert memory.visit(old) == 12


def test_a_prompt_larger_than_the_memory_keeps_its_head():
    memory = BlockMemory(BLOCK, limit=2)
    memory.visit(list(range(40)))
    assert memory.visit(list(range(40))) == 8


def test_salts_share_nothing():
    memory = BlockMemory(BLOCK, limit=100)
    assert [memory.visit([1] * 8, salt) for salt in ("", "a", "a", "")] == [0, 0, 8, 8]


def with_tokens(tokenizer, *tokens):
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])
    return Renderer(tokenizer, "{{ messages[0].content }}")


def sentence_piece(prepend):
    vocabulary = {
        piece: n for n, piece in enumerate(["<unk>", "\u2581", *"abcdefghij", "\u2581a", "\u2581b"])
    }
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [("\u2581", "a"), ("\u2581", "b")], unk_token="<unk>", fuse_unk=True)
    )
    if prepend == "normalizer":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    return with_tokens(tokenizer, "<s>", "</s>")


TOKENIZERS = {
    "bytes": lambda: with_tokens(byte_renderer().tokenizer, "<s>", "</s>"),
    "metaspace first": lambda: sentence_piece("first"),
    "metaspace always": lambda: sentence_piece("always"),
    "metaspace never": lambda: sentence_piece("never"),
    "prepending normalizer": lambda: sentence_piece("normalizer"),
    "spaces in front of the first word": lambda: with_tokens(
        prefixed(byte_renderer().tokenizer), "<s>", "</s>"
    ),
}


def prefixed(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    return tokenizer


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_texts_are_encoded_as_if_whole(make):
    renderer = make()
    encoder = Encoder(renderer)
    texts = ["<s>a b</s><s> a</s>b", "a b", "<s></s>", " a<s>b a ", "", "<s>a b</s><s> a</s>b"]
    whole = [list(renderer.tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    for _ in range(2):
        assert encoder.encode(texts) == whole


def test_a_tokenizer_of_bytes_is_cut_and_remembers_a_bounded_number(monkeypatch):
    monkeypatch.setattr("lmcache_tutorial.diagnosis.memory.MEMO_TOKENS", 30)
    encoder = Encoder(TOKENIZERS["bytes"]())
    for number in range(20):
        encoder.encode([f"<s>message {number}</s>"])
    assert encoder._held == sum(map(len, encoder._memo.values())) <= 30
    assert encoder._cut


def test_an_image_is_tokens_of_its_own():
    encoder = Encoder(byte_renderer())
    first, same, other = (
        encoder.encode([f"a{IMAGE_MARK}{digest * 16}{IMAGE_MARK}b"])[0] for digest in ("a", "a", "b")
    )
    assert len(first) == 2 + IMAGE_TOKENS
    assert first == same
    assert first != other


def test_a_completions_prompt_gets_the_tokenizers_own_special_tokens():
    renderer = with_tokens(byte_renderer().tokenizer, "<s>")
    renderer.tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", len(LETTERS))]
    )
    assert Encoder(renderer).with_special([1, 2]) == [len(LETTERS), 1, 2]
