"""Figures of a session, one module per subject; the report, `profilemate plot` and notebooks draw the same ones."""
