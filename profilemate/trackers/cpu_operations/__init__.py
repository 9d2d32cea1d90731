"""How long the Python around the model takes, by operation."""
