"""A request as turns of plain text: what of each message the template can write. Prompts are taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..prompts.rendering import texts_of
from .logged import Logged

# How families of templates open a turn and close it; the first that is found decides.
FAMILIES = tuple(
    re.compile(form, re.DOTALL)
    for form in (
        r"<\|im_start\|>(?P<role>\w+)\n(?P<text>.*?)(?:<\|im_end\|>\n?|\Z)",
        # Llama 3 and 4
        r"<\|(?:start_header_id|header_start)\|>(?P<role>\w+)<\|(?:end_header_id|header_end)\|>\n\n"
        r"(?P<text>.*?)(?:<\|(?:eot_id|eom_id|eot)\|>|\Z)",
        # Gemma
        r"<start_of_turn>(?P<role>\w+)\n(?P<text>.*?)(?:<end_of_turn>\n?|\Z)",
        # gpt-oss
        r"<\|start\|>(?P<role>\w+)[^<]*?<\|message\|>(?P<text>.*?)(?:<\|(?:end|return|call)\|>|\Z)",
        # Granite
        r"<\|start_of_role\|>(?P<role>\w+)<\|end_of_role\|>(?P<text>.*?)(?:<\|end_of_text\|>\n?|\Z)",
        # Phi
        r"<\|(?P<role>system|user|assistant|tool)\|>\n?"
        r"(?P<text>.*?)(?:<\|end\|>\n?|(?=<\|(?:system|user|assistant|tool)\|>)|\Z)",
        # DeepSeek, whose bars are wide
        r"<[|\uff5c](?P<role>User|Assistant)[|\uff5c]>(?P<text>.*?)"
        r"(?:<[|\uff5c]end\u2581of\u2581sentence[|\uff5c]>|(?=<[|\uff5c](?:User|Assistant)[|\uff5c]>)|\Z)",
        # Mistral
        r"(?P<role>\[SYSTEM_PROMPT\]|\[INST\]|\[/INST\])"
        r"(?P<text>.*?)(?:\[/SYSTEM_PROMPT\]|</s>|(?=\[/?INST\])|\Z)",
    )
)
ROLES = {
    "model": "assistant",
    "[system_prompt]": "system",
    "[inst]": "user",
    "[/inst]": "assistant",
}
Turn = tuple[str, str]
"""Role and text. Two turns are the same if the template writes the same for both."""


@dataclass(frozen=True, slots=True)
class Talk:
    """A request as turns, and its tool definitions."""

    turns: tuple[Turn, ...]
    tools: tuple[Any, ...] = ()

    @property
    def systems(self) -> int:
        """Count the turns at the front that are the system's."""
        count = 0
        while count < len(self.turns) and self.turns[count][0] in ("system", "developer"):
            count += 1
        return count


def talk_of(request: Logged, text: str, fields: frozenset[str]) -> Talk:
    """Return a request's turns.

    Args:
        request: as the log has it.
        text: its prompt, rendered.
        fields: the names that the template reads; what it does not read cannot make two turns differ.
    """
    if request.messages:
        turns = tuple((str(m["role"]), _text(m, fields)) for m in request.messages)
        return Talk(turns, request.tools if "tools" in fields or not fields else ())
    return Talk(taken_apart(text))


def taken_apart(prompt: str) -> tuple[Turn, ...]:
    r"""Read the turns back out of a prompt that was rendered; else all of it is one user's.

    >>> taken_apart("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    (('user', 'Hi'),)
    """
    for family in FAMILIES:
        found = [(match["role"], match["text"], match.start()) for match in family.finditer(prompt)]
        if not found:
            continue
        turns = [(ROLES.get(role.lower(), role.lower()), text) for role, text, _ in found]
        front = prompt[: found[0][2]]
        if len(front) > 40:  # a system prompt that stands bare in front of the first turn
            turns.insert(0, ("system", front))
        if turns[-1][0] == "assistant" and not turns[-1][1].strip():
            turns.pop()
        if turns:
            return tuple(turns)
    return (("user", prompt),)


def _text(message: Mapping[str, Any], fields: frozenset[str]) -> str:
    """Join the parts of a message that the template writes."""
    parts = ["\n".join(texts_of(message.get("content")))]
    for name in ("reasoning", "reasoning_content"):
        if message.get(name) and fields & {"reasoning", "reasoning_content"}:
            parts.insert(0, str(message[name]))
            break
    for call in message.get("tool_calls") or ():
        function = call["function"]
        parts.append(json.dumps({"name": function["name"], "arguments": function["arguments"]}))
        if "id" in fields and "id" in call:
            parts.append(str(call["id"]))
    if "tool_call_id" in fields and message.get("tool_call_id"):
        parts.append(str(message["tool_call_id"]))
    return "\n".join(part for part in parts if part)
