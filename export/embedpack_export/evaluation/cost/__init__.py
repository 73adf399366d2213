"""Cost of a variant: speed, memory, file size."""
