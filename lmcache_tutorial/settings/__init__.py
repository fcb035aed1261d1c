"""What a run was asked to do, and what fits this machine. The only reader of the environment."""
