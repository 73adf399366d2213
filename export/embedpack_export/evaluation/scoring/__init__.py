"""Scores of one evaluation set under many settings."""
