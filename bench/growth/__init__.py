"""How the cost of a window grows, and the fit that ``streamer size`` uses."""
