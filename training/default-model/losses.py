"""What the adapters learn from. Each loss is averaged over the dimensions a user may cut to: each must work alone."""

from __future__ import annotations

import torch
from encoder import MATRYOSHKA_DIMS
from scoring import paired, scores
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss


def contrastive(queries: Tensor, passages: Tensor, temperature: float) -> Tensor:
    """InfoNCE both ways: a row's own partner among those of the whole batch."""
    gold = torch.arange(len(queries))
    losses = []
    for dimensions in MATRYOSHKA_DIMS:
        logits = scores(queries, passages, dimensions) / temperature
        losses.append(cross_entropy(logits, gold) + cross_entropy(logits.T, gold))
    return torch.stack(losses).mean() / 2


def drift(vectors: Tensor, reference: Tensor) -> Tensor:
    """How far all similarities within the batch moved from the backbone's: what it knows beyond our sets stays."""
    width = vectors.shape[1]
    return mse_loss(scores(vectors, vectors, width), scores(reference, reference, width))


def unlikeness(left: Tensor, right: Tensor, grades: Tensor) -> Tensor:
    """One minus Pearson's correlation of the pairs' cosines with their grades, whatever scale these have."""
    losses = []
    for dimensions in MATRYOSHKA_DIMS:
        losses.append(1 - torch.corrcoef(torch.stack([paired(left, right, dimensions), grades]))[0, 1])
    return torch.stack(losses).mean()
