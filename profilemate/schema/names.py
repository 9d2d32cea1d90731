"""Names of folders, files and environment variables that both halves use, and the number of the session format."""

FORMAT = 2
"""Raised when one side would misread the other's sessions. 2: the trackers of the scheduler share the row of an engine step."""

SESSION_PREFIX = "session_"
SESSION_FILE = "session.json"
PROCESS_FILE = "process.json"
PROCESSES_FOLDER = "processes"
METADATA_FILE = "metadata.json"

ENV_SESSION = "PROFILEMATE_SESSION"
ENV_SESSION_OWNER = "PROFILEMATE_SESSION_OWNER"
ENV_PROCESSES = "PROFILEMATE_SESSION_PROCESSES"
"""How many processes share the session's size cap, from the program that launches them: an engine of a dense
data-parallel server knows itself alone."""
ENV_SECRET = "PROFILEMATE_SESSION_SECRET"
"""With which request ids and block hashes are hashed: inherited by the processes of a session and written nowhere."""
RUN_OWNER = "run"
"""Value of ENV_SESSION_OWNER where `profilemate run` (or the user) gave the session; else the owner's pid."""

ASKED_SIZES = "asked_cudagraph_capture_sizes"
"""Key of `engine_config` in the process.json of the program that built the engine's arguments, where sizes were given."""

START_LINE = "[sitecustomize] vLLM Comprehensive Instrumentation Loaded"
