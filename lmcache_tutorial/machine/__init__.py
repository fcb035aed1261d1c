"""This machine: processor, memory, limits of a container, a GPU, files, waiting threads."""
