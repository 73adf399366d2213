"""Parts of a checkpoint in the layout of jina-embeddings-v3: tensors, tokenizer, files."""
