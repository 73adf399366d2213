"""Listwise losses of a cross-encoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax


def label_loss(scores: Tensor) -> Tensor:
    """Cross-entropy of the scores [groups, documents], whose column 0 is right (ListNet, Cao et al. 2007)."""
    return cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64))


def teacher_loss(scores: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the scores' distribution over a group from the teacher's."""
    target = log_softmax(teacher / temperature, dim=1)
    return kl_div(log_softmax(scores, dim=1), target, reduction="batchmean", log_target=True)
