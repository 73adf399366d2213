"""Benchmarks of packs: `python -m benchmarks -h`; results with their provenance in `results/`."""
