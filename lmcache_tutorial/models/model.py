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

    def kv_bytes_per_token(self, dtype: str = "bfloat16") -> int:
        """Compute the bytes of keys and values of one token, from ``config.json``.

        Args:
            dtype: the number format that the engine keeps them in, ``bfloat16`` or ``float32``.

        Raises:
            ModelError: it does not name layers and heads.
        """
        try:
            config = json.loads((self.folder / "config.json").read_text())
            config = config.get("text_config") or config
            heads = config.get("num_key_value_heads") or config["num_attention_heads"]
            size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
            return kv_bytes_per_token(
                config["num_hidden_layers"], heads, size, value_bytes=VALUE_BYTES[dtype]
            )
        except KeyError as error:
            raise ModelError(
                f"{self.folder / 'config.json'} has no {error}: its KV size is unknown."
            ) from None
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{self.folder / 'config.json'} cannot be read, so the KV size is unknown: {error}"
            ) from None
