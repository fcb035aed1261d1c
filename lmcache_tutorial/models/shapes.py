"""A large model by its shape alone: the real architecture, random weights, a real tokenizer.

Times and token counts of such a model are real; its answers are noise. No download: the tokenizer is trained
on the tutorial's own corpus, which takes seconds, and the engine draws the weights (``--load-format dummy``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..prompts.documents import source_files

PREFIX = "shape:"
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LARGEST_VOCABULARY = 49_152
# Meta's Llama-3.1-8B without rope scaling, which changes no time; the vocabulary is the tokenizer's.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "shape:llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131_072,
        "rope_theta": 500_000.0,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
}


def write_shape(name: str, folder: Path) -> None:
    """Write ``config.json`` and a tokenizer for a shape; an engine can load the folder with dummy weights.

    Args:
        name: a key of :data:`SHAPES`.
        folder: an existing, empty folder.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train([str(path) for path in source_files()], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {**SHAPES[name], "vocab_size": tokenizer.get_vocab_size()}
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "bos_token": SPECIAL_TOKENS[0],
        "eos_token": SPECIAL_TOKENS[2],
        "pad_token": SPECIAL_TOKENS[2],
        "clean_up_tokenization_spaces": False,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1))
