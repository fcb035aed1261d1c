"""Models: the small real one, shapes with random weights, folders and the hub."""
