"""A prompt that nobody has asked, asked of a deployment: does it say what it reuses, and keep salts apart?"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from ..prompts.prompts_file import Prompt

if TYPE_CHECKING:
    from .deployment import Deployment

PROBE_NUMBERS = 150  # at least
PROBE_REPEATS = 3  # engines behind a router that are looked through, besides the first
NUMBER_TOKENS = (3, 7)  # what tokenizers make of a number of six digits and a space, at least and at most


def probe_numbers(chunk_tokens: int, context_tokens: int | None) -> int:
    """Choose how many numbers a probe has: more than a chunk, for of less LMCache is never asked.

    In a context that is shorter than a chunk it gets as many as fit, and nobody can tell who is asked.

    >>> probe_numbers(256, 8_192), probe_numbers(4_096, 65_536), probe_numbers(4_096, 2_048)
    (150, 1366, 219)
    """
    fewest, most = NUMBER_TOKENS
    wanted = max(PROBE_NUMBERS, chunk_tokens // fewest + 1)
    return min(wanted, context_tokens * 3 // 4 // most) if context_tokens else wanted


class Probe:
    """A prompt that nobody has asked: in one namespace, there again until it is reused, and in another.

    Of engines behind a router each may have to see it once before it is.
    """

    def __init__(self, unknown: Deployment, count: int) -> None:
        """Ask.

        Args:
            unknown: the deployment, whose salts are taken to be honoured.
            count: how many numbers the prompt has.

        Raises:
            NoAnswerError: a request had no answer.
        """
        numbers = " ".join(str(100_000 + secrets.randbelow(900_000)) for _ in range(count))
        content = f"{numbers}\nWhich is the largest?"
        prompt = Prompt({"messages": [{"role": "user", "content": content}]}, 0)
        one, other = unknown.namespace(), unknown.namespace()
        self.first = unknown.ask(prompt, one)
        self.again = unknown.ask(prompt, one)
        for _ in range(PROBE_REPEATS):
            if self.again.cached_tokens is None or self.again.cached_tokens:
                break
            self.again = unknown.ask(prompt, one)
        self.other = unknown.ask(prompt, other)

    @property
    def prompt_tokens(self) -> int:
        """How long its prompt is [tokens]; 0 where the server does not tell."""
        return self.first.prompt_tokens or 0

    @property
    def tells_cached(self) -> bool:
        """Whether the repeated request says how many of its tokens were not computed."""
        return self.again.cached_tokens is not None

    @property
    def honours_salts(self) -> bool:
        """Whether the request of another salt shared nothing, where the same one's shares.

        Where that was not seen, cold is made by nonces, which is right everywhere.
        """
        return bool(self.again.cached_tokens) and not self.other.cached_tokens
