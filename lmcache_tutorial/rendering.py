"""Messages and tools -> the text and the tokens that the engine sees, without the engine.

The chat template and the tokenizer of a model folder, through jinja2 and tokenizers; torch and transformers
are not imported. That the result is the engine's own, lessons check against its ``/tokenize``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

Message = Mapping[str, Any]


class RenderingError(ValueError):
    """A folder without tokenizer or chat template, or a request that the template refuses."""


@dataclass(frozen=True)
class Rendered:
    """A prompt as text and as tokens; token ``i`` covers the characters ``offsets[i]``."""

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        """Count the tokens."""
        return len(self.ids)


class Renderer:
    """One model's chat template and tokenizer."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        """Wrap a loaded tokenizer and the text of a chat template."""
        self.tokenizer = tokenizer
        self._source = template

    @classmethod
    def from_folder(cls, folder: Path, chat_template: Path | None = None) -> Renderer:
        """Read a model or tokenizer folder.

        Args:
            folder: holds ``tokenizer.json``, and ``chat_template.jinja`` or a template in
                ``tokenizer_config.json``.
            chat_template: a template to use instead, as vLLM's ``--chat-template``.

        Raises:
            RenderingError: one of them is missing.
        """
        if not (folder / "tokenizer.json").is_file():
            raise RenderingError(
                f"{folder} has no tokenizer.json.\nTo fix: name a folder made by save_pretrained."
            )
        own, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
        template: Any = None
        if chat_template or own.is_file():
            template = (chat_template or own).read_text()
        elif config.is_file():
            template = json.loads(config.read_text()).get("chat_template")
        if not isinstance(template, str):
            raise RenderingError(f"{folder} has no chat template.\nTo fix: put chat_template.jinja into it.")
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), template)

    @cached_property
    def _template(self) -> Template:
        # As transformers sets up its sandbox: these decide about white space, and so about tokens.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        return environment.from_string(self._source)

    def text(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> str:
        """Render a request, up to where the answer begins.

        Raises:
            RenderingError: the template refuses it.
        """
        try:
            return self._template.render(
                messages=[_as_the_server_does(message) for message in messages],
                tools=list(tools) if tools else None, add_generation_prompt=True, bos_token="", eos_token="",
            )  # fmt: skip
        except (TemplateError, TypeError) as error:
            raise RenderingError(f"the chat template refuses this request: {error}") from error

    def detokenizer_start_s(self, ids: Sequence[int]) -> float:
        """Time what a detokenizer does when the first token comes: it decodes the whole prompt once [s].

        vLLM (0.26 and 0.32, ``FastIncrementalDetokenizer``) steps tokenizers' ``DecodeStream``, which holds
        the prompt from the start; so does this. Each further step takes microseconds.

        Args:
            ids: the prompt's token ids, one or more.
        """
        stream = DecodeStream(ids=list(ids), skip_special_tokens=True)
        begin = time.perf_counter()
        stream.step(self.tokenizer, ids[-1])
        return time.perf_counter() - begin

    def split(self, text: str, share: float) -> tuple[str, str]:
        """Cut a text in two at a share of its tokens, from 0 (all behind the cut) to 1 (all before it)."""
        offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
        place = round(share * len(offsets))
        begin = offsets[place][0] if place < len(offsets) else len(text)
        return text[:begin], text[begin:]

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> Rendered:
        """Render and tokenize a request."""
        text = self.text(messages, tools)
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        return Rendered(text, tuple(encoded.ids), tuple(encoded.offsets))


def _as_the_server_does(message: Message) -> dict[str, Any]:
    """Copy a message; vLLM hands the arguments of a tool call to the template as an object, not as text."""
    copied = dict(message)
    if calls := copied.get("tool_calls"):
        functions = [dict(call["function"]) for call in calls]
        for function in functions:
            if isinstance(function["arguments"], str):
                function["arguments"] = json.loads(function["arguments"] or "{}")
        copied["tool_calls"] = [{**call, "function": f} for call, f in zip(calls, functions, strict=True)]
    return copied


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> None:
    raise TemplateError(message)
