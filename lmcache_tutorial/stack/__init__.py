"""Engines and LMCache: open, keep, reuse, restart, close."""

from . import kept
from .kept import StackError, kept_servers, open_stack, state_file, take_down
from .running import Messages, Stack

__all__ = ["Messages", "Stack", "StackError", "kept", "kept_servers", "open_stack", "state_file", "take_down"]
