"""Accuracy benchmarks: what quantization costs."""
