"""What looks at this machine and at the suite itself, on request."""
