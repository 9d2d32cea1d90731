"""The report: one self-contained HTML page of a session, from a list of sections, templates, and Vega's own script."""
