"""Metrics as pure functions of numbers: cosines, rankings, bootstrap intervals, non-inferiority."""
