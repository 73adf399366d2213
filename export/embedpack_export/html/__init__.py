"""Self-contained HTML pages with SVG plots."""
