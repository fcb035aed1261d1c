"""Figures against their bars, outcomes, and the verdict of a run."""
