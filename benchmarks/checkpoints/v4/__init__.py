"""Parts of a checkpoint in the layout of jina-embeddings-v4: sizes, names, values, files."""
