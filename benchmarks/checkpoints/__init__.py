"""Generators of random checkpoints."""
