"""Messages and tools of several APIs -> those of the OpenAI chat API, as vLLM makes them from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..prompts.chat_template import IMAGE_MARK
from ..prompts.rendering import arguments_of, texts_of
from .logged import BrokenLineError

# LangChain's names, and those of the Responses API, for the roles.
ROLES = {"human": "user", "ai": "assistant", "model": "assistant", "function": "tool"}
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
CALL_PARTS, RESULT_PARTS = ("tool_use", "tool_call"), ("tool_result", "tool_call_response")
THOUGHT_PARTS = ("thinking", "reasoning")
MEDIA = ("image", "image_url", "input_image", "audio", "audio_url", "input_audio", "video_url", "file")
BILLING = "x-anthropic-billing-header"  # a line that changes with every request; vLLM 0.32 takes it out
KEPT = ("name", "tool_call_id", "reasoning", "reasoning_content")
IMAGE = re.compile(f"{IMAGE_MARK}[0-9a-f]{{16}}{IMAGE_MARK}")


def chat_messages(listed: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """Read a list of messages; tool definitions among them are tools, as Langfuse's handler writes them.

    Returns:
        The messages, and the tools found among them.

    Raises:
        BrokenLineError: it is no list of messages.

    >>> chat_messages([{"type": "human", "content": "Hi"}])
    ([{'role': 'user', 'content': 'Hi'}], [])
    """
    if not isinstance(listed, list) or not listed:
        raise BrokenLineError("it has no messages")
    messages: list[dict[str, Any]] = []
    tools: list[Any] = []
    for one in listed:
        if not isinstance(one, dict):
            raise BrokenLineError("a message is no object")
        if _is_tool_definition(one):
            tools.append(chat_tool(one["content"]))
        else:
            messages += _one_message(one)
    if not messages:
        raise BrokenLineError("it has no messages")
    return messages, tools


def chat_tool(tool: Any) -> Any:
    """Give a tool definition the form in which vLLM hands it to the template.

    >>> chat_tool({"name": "f", "input_schema": {}})
    {'type': 'function', 'function': {'name': 'f', 'description': None, 'parameters': {}}}
    """
    if not isinstance(tool, dict):
        raise BrokenLineError("a tool is no object")
    function = tool.get("function", tool)
    known = isinstance(function, dict) and isinstance(function.get("name"), str)
    if not known or not ({"type", "parameters", "input_schema"} & set(tool) or "function" in tool):
        return tool
    schema = function.get("parameters", function.get("input_schema"))
    named = {"name": function["name"], "description": function.get("description"), "parameters": schema}
    if function.get("strict") is not None:
        named["strict"] = function["strict"]
    return {"type": "function", "function": named}


def responses_messages(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read a request of the Responses API: instructions, messages, calls and their outputs.

    Raises:
        BrokenLineError: it is not whole.
    """
    if document.get("previous_response_id"):
        raise BrokenLineError("previous_response_id: the earlier turns are not in the log")
    given, messages = document.get("input"), []
    if document.get("instructions"):
        messages.append({"role": "system", "content": document["instructions"]})
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    for item in given if isinstance(given, list) else ():
        messages += _item(item)
    return chat_messages(messages)[0]


def genai_messages(listed: Any, instructions: Any) -> list[dict[str, Any]]:
    """Read the messages of OpenTelemetry's GenAI conventions, whose parts have types of their own.

    Raises:
        BrokenLineError: they are none.
    """
    messages = [{"role": "system", "content": instructions}] if instructions else []
    for message in listed if isinstance(listed, list) else ():
        if not isinstance(message, dict):
            raise BrokenLineError("a message is no object")
        messages.append({**message, "content": message.get("parts", message.get("content"))})
    return chat_messages(messages)[0]


def count_images(messages: Sequence[Mapping[str, Any]]) -> int:
    """Count the images and other media, each of which stands as a mark in a text."""
    return sum(len(IMAGE.findall(text)) for message in messages for text in texts_of(message["content"]))


def _is_tool_definition(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return message.get("role") == "tool" and isinstance(content, dict) and "function" in content


def _item(item: Any) -> list[Any]:
    """Read an item of the Responses API."""
    kind = item.get("type") if isinstance(item, dict) else None
    if kind == "function_call":
        return [{"role": "assistant", "content": "", "tool_calls": [item]}]
    if kind == "function_call_output":
        output = item.get("output")
        return [{"role": "tool", "tool_call_id": item.get("call_id"), "content": output}]
    if kind == "reasoning":  # its text is encrypted or left out
        return []
    if kind == "item_reference":
        raise BrokenLineError("an item is only referred to; its text is not in the log")
    return [item]


def _one_message(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Read a message; the results of tools in an Anthropic message become messages of their own."""
    message = _undumped(message)
    role = message.get("role", message.get("type"))
    if not isinstance(role, str) or not role:
        raise BrokenLineError("a message has no role")
    content, listed = message.get("content"), message.get("tool_calls")
    parts = _parts(content)
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]

    def of_kind(names: Sequence[str]) -> list[Any]:
        return [part for part, kind in zip(parts, kinds, strict=True) if kind in names]

    yield from map(_result, of_kind(RESULT_PARTS))
    calls = [*(listed if isinstance(listed, list) else ()), *of_kind(CALL_PARTS)]
    special = (*RESULT_PARTS, *CALL_PARTS, *THOUGHT_PARTS)
    texts = [_text(part) for part, kind in zip(parts, kinds, strict=True) if kind not in special]
    kept = {key: message[key] for key in KEPT if isinstance(message.get(key), str)}
    thoughts = [str(part.get("thinking", part.get("content", ""))) for part in of_kind(THOUGHT_PARTS)]
    if thoughts:
        kept.setdefault("reasoning", "\n".join(thoughts))
    if texts or calls or thoughts or not parts:
        # A content of nothing and an empty text differ for a template that loops over parts.
        said = None if content is None else _joined(_without_billing(texts) if role == "system" else texts)
        read: dict[str, Any] = {"role": ROLES.get(role, role), "content": said, **kept}
        yield {**read, "tool_calls": [_call(call) for call in calls]} if calls else read


def _undumped(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Open a message as LangChain dumps it; others stay as they are."""
    if not isinstance(message.get("kwargs"), dict) or "lc" not in message:
        return message
    path = message.get("id")
    name = str(path[-1]) if isinstance(path, list) and path else ""
    return {"type": name.removesuffix("Chunk").removesuffix("Message").lower(), **message["kwargs"]}


def _without_billing(texts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for part in texts:
        line, _, rest = part["text"].partition("\n")
        if not line.startswith(BILLING):
            found.append(part)
        elif rest:
            found.append({**part, "text": rest})
    return found


def _joined(texts: list[dict[str, Any]]) -> Any:
    if len(texts) <= 1:
        return texts[0]["text"] if texts else ""
    return texts


def _parts(content: Any) -> list[Any]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if isinstance(content, dict):
        return [content]
    if isinstance(content, list):
        return content
    raise BrokenLineError("a content is neither text nor parts")


def _text(part: Any) -> dict[str, Any]:
    return {"type": "text", "text": _part_text(part)}


def _part_text(part: Any) -> str:
    """Return the text of a part; an image or the like becomes a mark that differs by content."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise BrokenLineError("a part of a content is neither text nor an object")
    kind = part.get("type")
    text = part.get("text", part.get("content", part.get("refusal")))
    if isinstance(text, str) and (kind is None or kind in TEXT_PARTS):
        return text
    if kind in MEDIA or "image_url" in part or "inline_data" in part:
        shown = {key: value for key, value in part.items() if key not in ("cache_control", "detail", "type")}
        digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
        return f"{IMAGE_MARK}{digest[:16]}{IMAGE_MARK}"
    named = f"a part of the type {kind[:40]!r}" if isinstance(kind, str) else "a part without a type"
    raise BrokenLineError(f"{named} is not a form that is read; needed: text or images")


def _result(part: Mapping[str, Any]) -> dict[str, Any]:
    content = part.get("content", part.get("response", part.get("result")))
    if isinstance(content, dict):
        content = json.dumps(content)
    texts = [_text(one) for one in _parts(content)]
    number = part.get("tool_use_id", part.get("id"))
    named = {"tool_call_id": number} if isinstance(number, str) else {}
    return {"role": "tool", "content": _joined(texts), **named}


def _call(call: Any) -> dict[str, Any]:
    """Read a tool call: OpenAI's form, LangChain's (``args``), Anthropic's (``input``) or Responses'."""
    if not isinstance(call, dict):
        raise BrokenLineError("a tool call is no object")
    function = call.get("function", call)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise BrokenLineError("a tool call has no name")
    given = next((function[key] for key in ("arguments", "args", "input") if key in function), None)
    try:
        arguments = arguments_of({"arguments": given})
    except ValueError:
        raise BrokenLineError(
            f"the arguments of a call of {name[:40]!r} are no JSON (vLLM 0.32 reads {{}}, others refuse)"
        ) from None
    number = call.get("id", call.get("call_id"))
    named = {"id": number} if isinstance(number, str) else {}
    # In vLLM's order, which shows where a template writes the whole call.
    return {**named, "function": {"arguments": arguments, "name": name}, "type": "function"}
