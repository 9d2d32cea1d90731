"""A vLLM general plugin that writes one line for every engine step that finished, outside any other hook.

It imports the scheduler itself, so a hook that goes in at import is inside this one: a line here means that the step, and
everything that others do at its end, is over. STEP_ORACLE names the file.
"""

import os


def register() -> None:
    """Wrap `Scheduler.update_from_output` where STEP_ORACLE is set."""
    path = os.environ.get("STEP_ORACLE")
    if not path:
        return
    from vllm.v1.core.sched.scheduler import Scheduler

    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    update = Scheduler.update_from_output

    def update_and_tell(self, scheduler_output, model_runner_output):
        result = update(self, scheduler_output, model_runner_output)
        os.write(descriptor, b"%d %d\n" % (os.getpid(), scheduler_output.total_num_scheduled_tokens))
        return result

    Scheduler.update_from_output = update_and_tell
