"""Draw the texts that the exporter ships."""
