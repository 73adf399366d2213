"""Runs over a corpus in shards, which go on after an interruption."""
