"""Helpers of several tests: tiny checkpoints and packs, oracles, edits of checkpoints, a browser."""
