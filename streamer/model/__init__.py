"""What a model is, what it sees of a window, and how it is run."""
