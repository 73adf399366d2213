"""Reference models in torch; the only package that imports torch."""
