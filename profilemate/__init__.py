"""ProfileMate: a profiler put beside a vLLM server. This file runs in every Python process under its PYTHONPATH."""

__version__ = "0.1.0"


def __getattr__(name):
    """`profilemate.open`: the half that reads is loaded when somebody asks for it, never inside a server."""
    if name != "open":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from profilemate.frames.session import open_session

    return open_session
