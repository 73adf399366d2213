"""Vectors and their codes: quantization, codebooks, containers, files."""
