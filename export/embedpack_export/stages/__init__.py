"""The calibrate, write, run loop over the stages of a model."""
