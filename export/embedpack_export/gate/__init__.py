"""The accuracy check at the end of an export: figures, budget, diagnosis, report page."""
