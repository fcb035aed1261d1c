"""How whoever asks writes an option: on pytest's command line, on ours, or in the ini file."""

from __future__ import annotations

from dataclasses import dataclass

PYTEST_PREFIX = "--kv-"
INI_PREFIX = "kv_"


@dataclass(frozen=True)
class Spelling:
    """Writes options as the asker did, so that a message names what was typed.

    ``prefix`` is what an option on the command line begins with, ``in_ini`` the options that were taken from
    the ini file.
    """

    prefix: str = "--"
    in_ini: frozenset[str] = frozenset()

    def __call__(self, option: str, value: object = None) -> str:
        """Write an option; with a value, write what sets it.

        >>> Spelling()("chunk_tokens"), Spelling(PYTEST_PREFIX)("chunk_tokens", 96)
        ('--chunk-tokens', '--kv-chunk-tokens=96')
        >>> Spelling(PYTEST_PREFIX, frozenset({"stack"}))("stack", "cpu")
        'kv_stack = cpu in the ini file'
        """
        if option in self.in_ini:
            setting = "" if value is None else f" = {value}"
            return f"{INI_PREFIX}{option}{setting} in the ini file"
        setting = "" if value is None else f"={value}"
        return f"{self.prefix}{option.replace('_', '-')}{setting}"


COMMAND = Spelling()
PYTEST = Spelling(PYTEST_PREFIX)
