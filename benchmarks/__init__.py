"""Accuracy, speed and footprint of packs: `python -m benchmarks -h`. Results lie in `results/`, written by the program."""
