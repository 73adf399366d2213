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


def ranking(left: Tensor, right: Tensor, grades: Tensor, temperature: float) -> Tensor:
    """CoSENT (Su, 2022): log(1 + sum of exp((cos of the worse pair - cos of the better pair) / temperature))."""
    better = grades[:, None] > grades[None, :]
    losses = []
    for dimensions in MATRYOSHKA_DIMS:
        cosines = paired(left, right, dimensions) / temperature
        gaps = (cosines[None, :] - cosines[:, None])[better]
        losses.append(torch.logsumexp(torch.cat([gaps.new_zeros(1), gaps]), dim=0))
    return torch.stack(losses).mean()


def drift(vectors: Tensor, reference: Tensor) -> Tensor:
    """How far all similarities within the batch moved from the backbone's: what it knows beyond our sets stays."""
    width = vectors.shape[1]
    return mse_loss(scores(vectors, vectors, width), scores(reference, reference, width))


def imitation(vectors: Tensor, reference: Tensor) -> Tensor:
    """Like `drift`, but every cut imitates the whole vector of the backbone."""
    goal = scores(reference, reference, reference.shape[1])
    return torch.stack([mse_loss(scores(vectors, vectors, size), goal) for size in MATRYOSHKA_DIMS]).mean()
