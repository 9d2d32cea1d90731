"""How fast a session's rows are opened and aggregated, against others who read CSV."""
