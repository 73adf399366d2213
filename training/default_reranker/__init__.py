"""A LoRA cross-encoder on the backbone of the default model."""
