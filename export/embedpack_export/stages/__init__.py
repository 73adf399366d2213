"""Stages of a model in a loop: calibrate, write, run what was written."""
