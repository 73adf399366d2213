"""Cost of a variant: speed, memory, bytes."""
