"""Tables that the probe itself writes, whatever trackers are on."""

from profilemate.schema.table import Table, fields

HEALTH = Table(
    "health",
    "State and cost of every hook, cumulative, written at the end of a step and ever more rarely as the session gets old. "
    "The cost is measured on all calls of the process's start, and on a sample of the later ones.",
    fields(
        ("time_ns", "int", "monotonic clock of this process"),
        ("hook", "str", "name of the hook"),
        ("state", "str", "put_in, or switched_off after five failures"),
        ("calls", "int", "calls so far"),
        ("failures", "int", "exceptions in our own code so far"),
        ("first_calls", "int", "calls at the start of the process, whose handlers were all timed"),
        ("first_ns", "int", "time that our handlers took in them"),
        ("sampled_calls", "int", "later calls whose handlers were timed, one flush interval of every 199"),
        ("sampled_ns", "int", "time that our handlers took in these"),
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
