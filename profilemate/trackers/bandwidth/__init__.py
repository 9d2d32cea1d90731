"""Bytes that a forward pass must read and write, and its floating-point operations: an estimate from what was scheduled."""
