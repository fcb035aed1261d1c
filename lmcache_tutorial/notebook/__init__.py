"""The lessons as one notebook: made from their modules, executed, and rendered as a page."""
