"""A request's body -> the same within a namespace, whose KV no other request shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Namespace:
    """What keeps the KV of some requests apart from all others: a salt, or a nonce in front of the prompt.

    Within it requests that have salts of their own stay apart from each other.
    """

    salt: str = ""
    nonce: str = ""

    def put(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put a request's body into the namespace."""
        body = dict(request)
        if salt := " ".join(filter(None, [self.salt, body.pop("cache_salt", None)])):
            body["cache_salt"] = salt
        if self.nonce and "messages" in body:
            first, *others = body["messages"]
            body["messages"] = [{**first, "content": _before(self.nonce, first.get("content"))}, *others]
        elif self.nonce and isinstance(body.get("prompt"), str):  # token ids have no place for a text
            body["prompt"] = f"{self.nonce}\n{body['prompt']}"
        return body


def _before(nonce: str, content: Any) -> Any:
    """Put a nonce in front of a message's content, which is a text or a list of parts."""
    if isinstance(content, list):
        return [{"type": "text", "text": nonce}, *content]
    if isinstance(content, Mapping):
        return content
    return f"{nonce}\n{content or ''}"
