"""Requests that are measured: the meter, the first token, and who served the prompt."""
