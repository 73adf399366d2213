"""Generators of checkpoints with random weights."""
