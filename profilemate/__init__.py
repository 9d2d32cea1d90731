"""ProfileMate: a profiler put beside a vLLM server. This file runs in every Python process under its PYTHONPATH."""

__version__ = "0.1.0"
