"""Tables that the probe itself writes, whatever trackers are on."""

from profilemate.schema.table import Table, fields

HEALTH = Table(
    "health",
    "State of every hook, cumulative, written at the end of a step and ever more rarely as the session gets old.",
    fields(
        ("time_ns", "int", "monotonic clock of this process"),
        ("hook", "str", "name of the hook"),
        ("state", "str", "put_in, or switched_off after five failures"),
        ("calls", "int", "calls so far"),
        ("failures", "int", "exceptions in our own code so far"),
    ),
)

GAPS = Table(
    "gaps",
    "Rows that never reached the disk or were removed again, and why.",
    fields(
        ("time_ns", "int", "monotonic clock of this process, when writing went on"),
        ("table", "str", "the table that lacks rows"),
        ("rows", "int", "how many rows"),
        (
            "reason",
            "str",
            "errno name of a failed write, slow, disk_floor, or size_cap for the oldest rows of a full session",
        ),
    ),
)

PROBE_TABLES = (HEALTH, GAPS)
