"""The full-precision torch model with its adapter unmerged: the only judge of accuracy, the only place for torch."""
