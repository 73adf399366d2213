"""Numerical methods of quantization, in numpy alone: GPTQ, error compensation, smoothing, codebooks."""
