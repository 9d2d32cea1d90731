"""The one exception that a command turns into a sentence for its user."""


class SessionError(Exception):
    """Something the user can act on: no session there, a folder that is none, a newer format. The text is the message."""
