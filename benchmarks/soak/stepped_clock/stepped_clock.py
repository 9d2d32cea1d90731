"""A vLLM general plugin that lets somebody outside step the time of day of a process, as NTP or an operator would.

STEPPED_CLOCK names a file of eight bytes, a double in the machine's order: the seconds that are added to `time.time()` and
`time.time_ns()`, for vLLM and for everybody else in the process. It is mapped, so that reading it takes no descriptor.
"""

import mmap
import os
import struct
import time


def register() -> None:
    """Put the stepped clock in the place of the real one, where STEPPED_CLOCK is set."""
    path = os.environ.get("STEPPED_CLOCK")
    if not path or hasattr(time, "stepped_by"):
        return
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    now, now_ns = time.time, time.time_ns

    def stepped_by():
        return struct.unpack_from("d", mapped)[0]

    time.stepped_by = stepped_by
    time.time = lambda: now() + stepped_by()
    time.time_ns = lambda: now_ns() + int(stepped_by() * 1e9)
