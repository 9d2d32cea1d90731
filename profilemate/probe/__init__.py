"""The half inside vLLM: standard library only, every hook guarded, rows on disk by the end of the engine step."""
