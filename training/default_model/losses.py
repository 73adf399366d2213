"""Training losses; each is averaged over the Matryoshka dimensions, so that every truncation works by itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from training.default_model.encoder import MATRYOSHKA_DIMS
from training.default_model.scoring import paired, scores


def contrastive(queries: Tensor, passages: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE with in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748)."""
    targets = torch.arange(len(queries))
    losses = []
    for dimensions in MATRYOSHKA_DIMS:
        logits = scores(queries, passages, dimensions) / temperature
        losses.append(cross_entropy(logits, targets) + cross_entropy(logits.T, targets))
    return torch.stack(losses).mean() / 2


def similarity_change(vectors: Tensor, reference: Tensor) -> Tensor:
    """Mean squared change of all cosines within the batch from the backbone's: keeps what it learned elsewhere."""
    width = vectors.shape[1]
    return mse_loss(scores(vectors, vectors, width), scores(reference, reference, width))


def correlation_loss(left: Tensor, right: Tensor, grades: Tensor) -> Tensor:
    """One minus Pearson's correlation of the pairs' cosines with their grades, which may have any scale."""
    cosines = [paired(left, right, dimensions) for dimensions in MATRYOSHKA_DIMS]
    return torch.stack([1 - torch.corrcoef(torch.stack([each, grades]))[0, 1] for each in cosines]).mean()
