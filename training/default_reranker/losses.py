"""Distillation losses of a cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from torch.nn.utils.rnn import pad_sequence

from training.default_reranker.cross_encoder import PairStates
from training.default_reranker.groups import Group
from training.default_reranker.settings import Settings


def targets(groups: Sequence[Group], settings: Settings) -> Tensor:
    """Scores [groups, documents] to learn: the teacher's over its temperature, more for the right document."""
    scores = torch.tensor([group.teacher for group in groups]) / settings.teacher_temperature
    scores[:, 0] += settings.label_bonus
    return scores


def ranking_loss(scores: Tensor, target: Tensor, settings: Settings) -> Tensor:
    """Kullback-Leibler divergence within each group, plus the squared error of the scores' differences.

    The divergence is mostly that of the best documents of a group; the differences (margin-MSE, Hofstaetter et al.
    2020, arXiv 2010.02666) keep the scores of the others apart too.
    """
    divergence = kl_div(log_softmax(scores, 1), log_softmax(target, 1), reduction="batchmean", log_target=True)
    errors = scores - target
    return divergence + settings.margin_weight * (errors - errors.mean(1, keepdim=True)).square().mean()


class TokenHead(torch.nn.Module):
    """Prediction of the ColBERT's cosine at every token of the query; it is used in training alone."""

    def __init__(self, groups: Sequence[Group], width: int) -> None:
        """Take mean and spread of all cosines, so that the targets have mean 0 and variance 1."""
        super().__init__()
        cosines = torch.tensor([value for group in groups for row in group.tokens for value in row])
        self.mean, self.spread = cosines.mean().item(), cosines.std().item()
        self.linear = torch.nn.Linear(width, 1)

    def loss(self, states: PairStates, cosines: list[list[float]]) -> Tensor:
        """Sum of the pairs' mean squared errors; the query's tokens stand behind [CLS]."""
        rows = [torch.tensor(row) for row in cosines]
        target = (pad_sequence(rows, batch_first=True) - self.mean) / self.spread
        mask = pad_sequence([torch.full((len(row),), 1 / len(row)) for row in rows], batch_first=True)
        found = self.linear(states.tokens[:, 1 : 1 + target.shape[1]])[..., 0]
        return ((found - target).square() * mask).sum()
