"""Logs of requests: read, predicted, and what broke a prefix. Offline."""
