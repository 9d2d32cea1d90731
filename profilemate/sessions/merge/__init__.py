"""Joining the sessions of several hosts into one: clocks, engine numbers, request ids, and the folder itself."""
