"""The one exception that a command turns into a sentence for its user."""


class SessionError(Exception):
    """Something the user can act on, such as no session there or a newer format. The text is the message."""
