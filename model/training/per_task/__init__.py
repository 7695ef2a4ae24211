"""The parts of a network that are fitted for each task alone."""
