"""Prompts: documents, chat templates, segments, and where two prompts part."""
