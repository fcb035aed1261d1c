"""What every page shares: templates, charts and the picture of a prefix."""
