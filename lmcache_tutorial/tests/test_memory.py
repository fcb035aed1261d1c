"""Texts are cut only where that changes no token."""

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from lmcache_tutorial.diagnosis.memory import IMAGE_TOKENS, Encoder
from lmcache_tutorial.diagnosis.messages import IMAGE_MARK
from lmcache_tutorial.prompts.rendering import Renderer
from lmcache_tutorial.tests.test_prompts import LETTERS, byte_renderer


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
