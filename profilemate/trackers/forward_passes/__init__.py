"""Serving forward passes of the main model: the one recorder of passes, and how long they took in each phase."""
