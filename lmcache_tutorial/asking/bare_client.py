"""A bare HTTP client: one streamed request, and the time to its first token."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ..stack.stack import Stack
from .first_token import read_to_first_token

ANSWER_TOKENS = 4


REQUEST_LIMIT_S = 120.0


def first_token_s(stack: Stack, path: str, body: Mapping[str, Any]) -> float:
    """Send a streamed request with a bare HTTP client; return the time to its first token [s].

    The clock starts when the finished bytes are sent and stops at the first token, see :mod:`first_token`.
    The rest of the answer is read before this returns.

    Raises:
        NoTokenError: the answer ended without a token.
        httpx.HTTPError: there was no answer.
    """
    options = {"model": stack.model.name, "max_tokens": ANSWER_TOKENS, "temperature": 0, "stream": True}
    content = json.dumps({**options, **body}).encode()
    headers = {"content-type": "application/json"}
    sent = time.perf_counter()
    with stack.client.stream(
        "POST", stack.url + path, content=content, headers=headers, timeout=REQUEST_LIMIT_S
    ) as answer:
        answer.raise_for_status()
        lines = answer.iter_lines()
        read_to_first_token(lines)
        first = time.perf_counter()
        for _ in lines:  # the rest of the answer must not fall into the next window
            pass
    return first - sent
