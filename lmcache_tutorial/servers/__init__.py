"""Server programs: one module a program, and the processes that they run in."""
