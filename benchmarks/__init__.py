"""Accuracy, speed and footprint of packs: `python -m benchmarks -h`; figures and their conditions in `results/`."""
