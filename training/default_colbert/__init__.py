"""A LoRA ColBERT on the backbone of the default model."""
