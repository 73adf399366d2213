"""Evaluation sets: discovery, reading, assignment to tasks."""
