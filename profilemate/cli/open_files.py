"""How many files a command may have open: all segments of all processes are, so that none goes while it is read."""

from __future__ import annotations


def allow_many() -> None:
    """Raise this process's soft limit as far as it may, where the system has one."""
    try:
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ImportError, OSError, ValueError):
        return
