"""Scores between vectors, and exact nearest-neighbour search."""
