"""Engines and LMCache: open, keep, reuse, restart, close."""

from . import kept
from .kept import StackError, class_memory, kept_servers, open_stack, state_file, take_down
from .running import Messages, Stack
from .starting import launch, wait_ready

__all__ = [
    "Messages",
    "Stack",
    "StackError",
    "class_memory",
    "kept",
    "kept_servers",
    "launch",
    "open_stack",
    "state_file",
    "take_down",
    "wait_ready",
]
