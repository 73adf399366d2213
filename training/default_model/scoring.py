"""Cosines, nDCG@10 and Spearman's correlation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def scores(queries: Tensor, passages: Tensor, dimensions: int) -> Tensor:
    """Cosines [queries, passages] of vectors truncated to `dimensions`, normalized after truncation."""
    return normalize(queries[:, :dimensions], dim=-1) @ normalize(passages[:, :dimensions], dim=-1).T


def paired(left: Tensor, right: Tensor, dimensions: int) -> Tensor:
    """Cosines [rows] of row i with row i, truncated like `scores`."""
    return (normalize(left[:, :dimensions], dim=-1) * normalize(right[:, :dimensions], dim=-1)).sum(-1)


def ndcg_at_10(similarity: Tensor, relevant: Sequence[set[int]]) -> Tensor:
    """nDCG@10 of every query, float64 [queries]; `relevant` has the indices of its passages, all of gain 1."""
    discounts = 1 / torch.log2(torch.arange(2, 12, dtype=torch.float64))
    best = similarity.topk(min(10, similarity.shape[1]), dim=1).indices.tolist()
    values = []
    for ranking, answers in zip(best, relevant, strict=True):
        gain = sum(discounts[rank].item() for rank, passage in enumerate(ranking) if passage in answers)
        values.append(gain / discounts[: min(10, len(answers))].sum().item())
    return torch.tensor(values, dtype=torch.float64)


def ranks(values: Tensor) -> Tensor:
    """Ranks as float64; equal values share the mean of their ranks."""
    group, sizes = torch.unique(values, return_inverse=True, return_counts=True)[1:]
    last = sizes.cumsum(0).to(torch.float64)
    return (last - (sizes - 1) / 2)[group]


def spearman(left: Tensor, right: Tensor) -> float:
    """Spearman's rank correlation: Pearson's of the ranks."""
    return torch.corrcoef(torch.stack([ranks(left), ranks(right)]))[0, 1].item()
