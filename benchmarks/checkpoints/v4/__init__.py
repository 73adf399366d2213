"""A checkpoint in the layout of jina-embeddings-v4 with random weights: sizes, names, values, files."""
