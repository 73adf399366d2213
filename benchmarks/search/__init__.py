"""Benchmarks of exact search."""
