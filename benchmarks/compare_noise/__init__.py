"""How often a comparison finds what is there, and what is not."""
