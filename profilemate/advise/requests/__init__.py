"""Requests that ended: how long they were, and how sure that makes a limit."""
