"""Linear layers in each weights format: fp32, fp16, int8, int4."""
