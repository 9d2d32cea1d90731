"""Memory and time of the commands that read a session, by the number of its rows, with totals held against the truth."""
