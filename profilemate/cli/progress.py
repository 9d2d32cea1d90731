"""A line on stderr for what takes longer than a second, where somebody looks at it."""

from __future__ import annotations

import sys
import time
from types import TracebackType

FIRST_AFTER_SECONDS = 1.0
EVERY_SECONDS = 0.2
CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Use as a context manager and as the `on_read` of a session, or call `show` with any text."""

    def __init__(self, doing: str) -> None:
        """`doing` begins the line."""
        self._doing = doing
        self._next = time.monotonic() + FIRST_AFTER_SECONDS
        self._bytes = 0
        self._shown = False
        self._wanted = sys.stderr.isatty()

    def read(self, num_bytes: int) -> None:
        """So many more bytes were read."""
        self._bytes += num_bytes
        self.show(f"{self._bytes / (1 << 20):.0f} MiB read")

    def show(self, text: str) -> None:
        """Show it if it is time."""
        if not self._wanted or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_SECONDS
        self._shown = True
        sys.stderr.write(f"{CLEAR_LINE}{self._doing}: {text}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave a clean line, for other output; the next `show` goes on."""
        if self._shown:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()

    def __enter__(self) -> Progress:
        """Nothing is shown yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave a clean line."""
        self.clear()
