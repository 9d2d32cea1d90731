"""Folders of sessions: what lies in one, joining sessions of several hosts, removing old ones. Standard library only."""
