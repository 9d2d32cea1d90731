"""What capture sizes are advised from: vLLM's rules, the batches that came, their cost, and the exact dynamic programme."""
