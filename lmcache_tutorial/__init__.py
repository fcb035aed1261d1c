"""An executable tutorial: what LMCache brings to long-context work on vLLM, proven on your machine."""

__version__ = "0.1.0"
