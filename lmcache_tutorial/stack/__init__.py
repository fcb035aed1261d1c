"""A stack: servers that run together; started, kept, reused, asked, ended."""
