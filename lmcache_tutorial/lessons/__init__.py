"""A lesson as a file: its header, its sentences, and how far its rounds are."""
