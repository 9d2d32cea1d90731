"""What a KV cache of another size would have done: the blocks of prompts, stack distances, and a replay of the session."""
