"""Code that made the data that the project ships: adapters and texts."""
