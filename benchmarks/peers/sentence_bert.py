"""sentence-transformers on torch; its input is texts, which it sorts and batches by 32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.peers.job import Inputs, PeerJob, Vectors

BATCH = 32


@dataclass(frozen=True)
class SentenceModel:
    """Model that reads texts; the time of tokenization counts."""

    model: Any

    def batch(self, inputs: Inputs) -> Vectors:
        return self._run(inputs, max(BATCH, len(inputs.texts)))

    def corpus(self, inputs: Inputs) -> Vectors:
        return self._run(inputs, BATCH)

    def _run(self, inputs: Inputs, batch: int) -> Vectors:
        vectors: Vectors = self.model.encode(
            inputs.texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors


def open_model(job: PeerJob) -> SentenceModel:
    """Load the checkpoint with its modules.json."""
    torch.set_num_threads(job.threads)
    return SentenceModel(SentenceTransformer(job.source.checkpoint, device="cpu", local_files_only=True))
