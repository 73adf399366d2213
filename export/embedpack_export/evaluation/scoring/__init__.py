"""Scores of evaluation sets under many settings."""
