"""Fuzzers: seeded attacks on every kind of input, and the program that runs them.

python -m tests.fuzz
"""
