"""Memory, size and endurance benchmarks."""
