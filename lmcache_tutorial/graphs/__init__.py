"""LangGraph graphs under test."""
