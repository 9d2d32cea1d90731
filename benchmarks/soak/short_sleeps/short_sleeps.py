"""A vLLM general plugin that lets vLLM's processes wait for each other as they do on a Python before 3.11.1: by `sleep(0)`.

With `sched_yield`, processes of two servers that are pinned to the same core (the CPU build pins each worker) starve on
Linux 6.18: a worker that could run got no tick for a minute, with ProfileMate and without (seen by /proc/PID/stat, on 2 cores).
What the soak breaks on purpose could not be told from that. With `sleep(0)` it is rarer and shorter, not gone.
"""


def register() -> None:
    """Take vLLM's own other way, where this vLLM has one."""
    from vllm.distributed import utils

    if hasattr(utils, "USE_SCHED_YIELD"):
        utils.USE_SCHED_YIELD = False
