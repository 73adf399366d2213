"""Checkpoints, adapters and where they come from: folders, wheels, the hub."""
