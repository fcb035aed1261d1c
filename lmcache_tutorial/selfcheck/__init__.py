"""Five questions a lesson, with answers whose numbers come from a run."""
