"""Checks of ProfileMate against many vLLM versions, from the Python files of their wheels."""
