"""HTTP server of packs: embeddings of Jina and OpenAI, rerank, models, health, metrics, and pages to try them."""
