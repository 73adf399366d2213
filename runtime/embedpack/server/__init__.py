"""HTTP server of packs: the embeddings endpoint of Jina and OpenAI, models, health, metrics."""
