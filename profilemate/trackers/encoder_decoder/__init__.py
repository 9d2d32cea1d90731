"""Encoder passes of multimodal and encoder-decoder models, beside the forward passes of the same worker."""
