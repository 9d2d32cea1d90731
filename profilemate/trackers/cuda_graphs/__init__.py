"""CUDA graphs: what is captured, what each serving forward pass replays, and which replays nobody explained."""
