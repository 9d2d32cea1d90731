"""`make soak`: a server under load on which one thing after another goes wrong, beside one without ProfileMate."""
