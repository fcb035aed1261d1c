"""Messages and tools -> the text and the tokens that the engine sees, without the engine.

The chat template and the tokenizer of a model folder, through jinja2 and tokenizers; torch and transformers
are not imported. That the result is the engine's own, lessons check against its ``/tokenize``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from .chat_template import DEFAULT, IMAGE_MARK, ChatTemplate

Message = Mapping[str, Any]
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What a template may do with a request that it was not written for; all of it refuses the request.
REFUSALS = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


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


class RefusedError(RenderingError):
    """A request that the chat template refuses; the message gives the template's own words."""


class Renderer:
    """One model's chat template and tokenizer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | Mapping[str, str],
        special_tokens: Mapping[str, str] | None = None,
    ) -> None:
        """Wrap a loaded tokenizer and a chat template.

        Args:
            tokenizer: as the ``tokenizers`` package loads it.
            template: the text of the template, or several by name.
            special_tokens: ``bos_token`` and the like, which the template may write.
        """
        self.tokenizer = tokenizer
        self._template = ChatTemplate(template, special_tokens or {})

    @classmethod
    def from_folder(cls, folder: Path, chat_template: Path | None = None) -> Renderer:
        """Read a model or tokenizer folder.

        Args:
            folder: holds ``tokenizer.json``, and ``chat_template.jinja`` or a template in
                ``tokenizer_config.json``, which also names the special tokens.
            chat_template: a template to use instead, as vLLM's ``--chat-template``.

        Raises:
            RenderingError: one of them is missing or damaged.
        """
        if not (folder / "tokenizer.json").is_file():
            raise RenderingError(
                f"{folder} has no tokenizer.json.\nTo fix: name a folder made by save_pretrained."
            )
        config = _config(folder / "tokenizer_config.json")
        template = _read(chat_template) if chat_template else _own_template(folder, config)
        if not template:
            raise RenderingError(f"{folder} has no chat template.\nTo fix: put chat_template.jinja into it.")
        named = {**_config(folder / "special_tokens_map.json"), **config}
        tokens = {name: _token(named.get(name)) for name in SPECIAL_TOKENS}
        return cls(
            _tokenizer(folder / "tokenizer.json"),
            template,
            {name: token for name, token in tokens.items() if token is not None},
        )

    @property
    def fields(self) -> frozenset[str]:
        """The names of all attributes and keys of a request that the template reads."""
        return self._template.fields

    def text(
        self,
        messages: Sequence[Message],
        tools: Sequence[Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Render a request, up to where the answer begins.

        Args:
            messages: of the OpenAI chat API.
            tools: their definitions.
            variables: what else the template is given, as vLLM's ``chat_template_kwargs``.

        Raises:
            RefusedError: the template refuses it.
        """
        try:
            parts = self._template.takes_parts
            served = [_as_the_server_does(message, parts) for message in messages]
            if "developer" not in self.fields:
                served = _developer_as_system(served)
            return self._template.render(served, tools or (), variables or {})
        except REFUSALS as error:
            raise RefusedError(f"the chat template refuses this request: {error}") from error

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


def arguments_of(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a tool call as the object that vLLM hands to the template.

    Raises:
        ValueError: they are text, but no JSON.
    """
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    return arguments if isinstance(arguments, dict) else {}


def texts_of(content: Any) -> list[str]:
    """Return the texts of a message's content, images first, as vLLM joins them into one text."""
    if isinstance(content, str):
        return [content]
    texts = [_part_text(part) for part in content or ()]
    found = [text for text in texts if text is not None]
    return sorted(found, key=lambda text: not text.startswith(IMAGE_MARK))


def _part_text(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    return text if isinstance(text, str) else None


def _as_the_server_does(message: Message, parts: bool) -> dict[str, Any]:
    """Copy a message as vLLM hands it to the template.

    The arguments of a tool call become an object. A content becomes one text, or a list of parts for a
    template that loops over them; reasoning goes by both of its names.
    """
    copied = dict(message)
    content, calls = copied.get("content"), copied.pop("tool_calls", None)
    reasoning = copied.pop("reasoning_content", None)
    reasoning = copied.pop("reasoning", None) or reasoning
    if parts and copied.get("role") != "tool":
        listed = [content] if isinstance(content, str) else content or []
        copied["content"] = [{"type": "text", "text": p} if isinstance(p, str) else p for p in listed]
    elif not isinstance(content, str):
        copied["content"] = "\n".join(texts_of(content))
    # What follows stands in vLLM's order, which shows where a template writes a whole message.
    if calls:
        copied["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": arguments_of(call["function"])}}
            for call in calls
        ]
    if reasoning is not None:
        copied["reasoning"] = copied["reasoning_content"] = reasoning
    return copied


def _developer_as_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Call developer messages system messages, and merge these in front.

    That is what vLLM 0.32 does for a template that does not know the role.
    """
    if not any(message.get("role") == "developer" for message in messages):
        return messages
    named = [{**m, "role": "system"} if m.get("role") == "developer" else m for m in messages]
    systems = [message for message in named if message.get("role") == "system"]
    if len(systems) == 1 and named[0] is systems[0]:
        return named
    texts = ["\n".join(texts_of(message["content"])) for message in systems]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(message for message in named if message.get("role") != "system")]


def _own_template(folder: Path, config: Mapping[str, Any]) -> str | dict[str, str]:
    """Return a folder's chat template, or its templates by name; an empty text if it has none."""
    found: dict[str, str] = {}
    if (folder / "chat_template.jinja").is_file():
        found[DEFAULT] = _read(folder / "chat_template.jinja")
        found |= {
            path.stem: _read(path) for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
        }
    else:
        named = config.get("chat_template")
        if isinstance(named, str):
            return named
        for one in named if isinstance(named, list) else ():
            if isinstance(one, dict) and isinstance(one.get("template"), str):
                found[str(one.get("name"))] = one["template"]
    return found if set(found) - {DEFAULT} else found.get(DEFAULT, "")


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path)) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise RenderingError(f"{path} is damaged: {error}.\nTo fix: fetch the model again.") from None
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise RenderingError(f"{path} cannot be read: {error}.\nTo fix: name another folder.") from None


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise RenderingError(f"{path} is damaged: {error}.\nTo fix: fetch the model again.") from None


def _token(named: Any) -> str | None:
    """Read a special token: a text, or an object with its content."""
    if isinstance(named, dict):
        named = named.get("content")
    return named if isinstance(named, str) else None
