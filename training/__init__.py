"""Code that trained what the project ships."""
