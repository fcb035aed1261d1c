"""A model folder: what identifies it, its chat template, and what a token's KV takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..quantities.predict import kv_bytes_per_token

CHAT_TEMPLATE = Path(__file__).with_name("chat_with_tools.jinja")
VALUE_BYTES = {"bfloat16": 2, "float32": 4}

Progress = Callable[[str], None]
"""Told what happens, a line at a time."""


class ModelError(RuntimeError):
    """The model cannot be prepared or read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the size of KV: layers, attention heads, those of keys and values, values of a head."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int

    def divides(self, gpus: int) -> bool:
        """Tell whether so many GPUs get as many heads each; heads of KV may be on several GPUs (vLLM 0.32).

        >>> [gpus for gpus in range(1, 33) if Shape(32, 32, 8, 128).divides(gpus)]
        [1, 2, 4, 8, 16, 32]
        """
        even = self.kv_heads % gpus == 0 or gpus % self.kv_heads == 0
        return self.heads % gpus == 0 and even


@dataclass(frozen=True, slots=True)
class Model:
    """A model folder, its identity (a hash over config and weights' sizes and times), its chat template.

    ``chat_template`` replaces the folder's own: the small model's ignores tools, a shape has none.
    ``random_weights`` tells that the folder has no weights: the engine draws them.
    """

    folder: Path
    name: str
    digest: str
    chat_template: Path | None = None
    random_weights: bool = False

    def kv_bytes_per_token(self, dtype: str = "bfloat16", tensor_parallel: int = 1) -> int:
        """Compute the bytes of keys and values of one token, from ``config.json``.

        Args:
            dtype: the number format that the engine keeps them in, ``bfloat16`` or ``float32``.
            tensor_parallel: over how many GPUs the engine is spread.

        Returns:
            The bytes of all GPUs together.

        Raises:
            ModelError: it does not name layers and heads.
        """
        shape = self._shape()
        return kv_bytes_per_token(
            shape.layers,
            shape.kv_heads,
            shape.head_size,
            value_bytes=VALUE_BYTES[dtype],
            tensor_parallel=tensor_parallel,
        )

    @property
    def context_tokens(self) -> int | None:
        """The longest prompt with its answer that ``config.json`` names [tokens]; ``None``: it names none."""
        try:
            config = json.loads((self.folder / "config.json").read_text())
            found = (config.get("text_config") or config).get("max_position_embeddings")
        except (OSError, ValueError, AttributeError):
            return None
        return found if isinstance(found, int) else None

    def check_tensor_parallel(self, gpus: int) -> None:
        """Check that an engine can be spread over so many GPUs: each must get as many heads as the others.

        Raises:
            ModelError: it cannot, or ``config.json`` does not tell.
        """
        if gpus == 1:
            return
        shape = self._shape()
        fitting = [number for number in range(1, shape.heads + 1) if shape.divides(number)]
        if gpus not in fitting:
            raise ModelError(
                f"{self.name} has {shape.heads} attention heads and {shape.kv_heads} of keys and values, "
                f"which cannot be divided evenly among {gpus} GPUs.\n"
                f"To fix: --kv-tensor-parallel with one of {', '.join(map(str, fitting))}"
            )

    def _shape(self) -> Shape:
        path = self.folder / "config.json"
        try:
            config = json.loads(path.read_text())
            config = config.get("text_config") or config
            heads = config["num_attention_heads"]
            size = config.get("head_dim") or config["hidden_size"] // heads
            kv_heads = config.get("num_key_value_heads") or heads
            return Shape(config["num_hidden_layers"], heads, kv_heads, size)
        except KeyError as error:
            raise ModelError(f"{path} has no {error}: its KV size is unknown.") from None
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{path} cannot be read, so the KV size is unknown: {error}") from None
