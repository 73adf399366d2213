"""Linear layers in each weights format: fp32, int8, int4."""
