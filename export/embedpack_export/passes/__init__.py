"""Changes to finished graphs, one a file."""
