"""Prefix-cache look-ups: what each admitted request found, why it missed the rest, and its blocks in order."""
