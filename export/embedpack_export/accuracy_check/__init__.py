"""Accuracy check at the end of an export: a pack over its budget of loss fails."""
