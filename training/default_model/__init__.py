"""Training and evaluation of the default model: LoRA adapters and a multi-vector projector on all-MiniLM-L6-v2."""
