"""Langfuse traces: recorded, and read back."""
