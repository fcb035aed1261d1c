"""Quantities: records of what was measured, predictions, statistics, and how numbers are printed."""
