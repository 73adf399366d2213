"""sentence-transformers on torch; its input is texts, which it sorts and batches by 32."""

from __future__ import annotations

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.peers.job import PeerInputs, PeerJob, PeerModel, PeerVectors

BATCH = 32


def open_model(job: PeerJob) -> PeerModel:
    """Load the checkpoint with its modules.json; the time of tokenization counts."""
    torch.set_num_threads(job.threads)
    model = SentenceTransformer(job.source.checkpoint, device="cpu", local_files_only=True)

    def run(inputs: PeerInputs, batch: int) -> PeerVectors:
        vectors: PeerVectors = model.encode(
            inputs.texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    return PeerModel(lambda inputs: run(inputs, max(BATCH, len(inputs.texts))), lambda inputs: run(inputs, BATCH))
