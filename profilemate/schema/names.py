"""Names of folders, files and environment variables that both halves use, and the number of the session format."""

FORMAT = 1
"""Raised when a reader of the old format would misread a new session. 1: first format."""

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
RUN_OWNER = "run"
"""Value of ENV_SESSION_OWNER where `profilemate run` (or the user) gave the session; else the owner's pid."""

START_LINE = "[sitecustomize] vLLM Comprehensive Instrumentation Loaded"
