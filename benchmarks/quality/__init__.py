"""Benchmarks of accuracy: the loss by quantization."""
