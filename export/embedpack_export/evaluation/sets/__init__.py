"""Evaluation sets: discovery of folders, reading, assignment to the tasks of a pack."""
