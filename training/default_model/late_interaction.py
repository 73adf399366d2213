"""Multi-vectors: the projector, MaxSim, binary codes and window pooling."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, pad

from training.default_model.encoder import TASKS, States

VECTOR = 128
DOCUMENTS = 16  # documents of one MaxSim product
WINDOW = 3  # neighbouring tokens that are pooled to one vector


class Projector(nn.Module):
    """Linear layer [128, 384] with a bias and a LoRA for each task: the token head of jina-embeddings-v4."""

    def __init__(self, weight: Tensor, bias: Tensor, rank: int, alpha: int) -> None:
        """Start at `weight` [128, 384] and `bias` [128]; the LoRAs start as PEFT initializes them, without effect."""
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(bias.clone())
        self.scale = alpha / rank
        self.down = nn.ParameterDict({task: nn.Parameter(torch.empty(rank, weight.shape[1])) for task in TASKS})
        self.up = nn.ParameterDict({task: nn.Parameter(torch.zeros(weight.shape[0], rank)) for task in TASKS})
        for matrix in self.down.values():
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def forward(self, states: States, task: str) -> States:
        """Unit vectors [texts, tokens, 128]; rows of padding hold arbitrary values."""
        change = linear(linear(states.values, self.down[task]), self.up[task]) * self.scale
        return States(normalize(linear(states.values, self.weight, self.bias) + change, dim=-1), states.mask)


def principal_projection(states: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [128, 384] and bias [128] of the projection of states [n, 384] onto their principal directions."""
    mean = states.mean(0)
    _, vectors = torch.linalg.eigh((states - mean).T @ (states - mean))
    weight = vectors[:, -VECTOR:].flip(1).T.contiguous()
    return weight, -weight @ mean


def maxsim(queries: States, documents: States) -> Tensor:
    """MaxSim scores [queries, documents]: for every query token the highest dot product, summed."""
    (query_count, query_tokens, _), (count, tokens, _) = queries.values.shape, documents.values.shape
    padding = torch.where(documents.mask == 1, 0.0, -torch.inf).flatten()
    products = torch.addmm(padding, queries.values.flatten(0, 1), documents.values.flatten(0, 1).T)
    best = products.view(query_count, query_tokens, count, tokens).max(-1).values
    return (best * queries.mask.unsqueeze(-1)).sum(1)


def maxsim_in_parts(queries: States, documents: States) -> Tensor:
    """`maxsim` over DOCUMENTS documents at a time, to limit the memory of the token products."""
    parts = zip(torch.split(documents.values, DOCUMENTS), torch.split(documents.mask, DOCUMENTS), strict=True)
    return torch.cat([maxsim(queries, States(values, mask)) for values, mask in parts], dim=1)


def binary(vectors: States, center: Tensor) -> States:
    """Vectors as binary codes decode them, unit(center + level * sign), with straight-through gradients."""
    offsets = vectors.values - center
    level = offsets[vectors.mask == 1].abs().mean()
    coded = normalize(center + level * torch.where(offsets > 0, 1.0, -1.0), dim=-1)
    return States(vectors.values + (coded - vectors.values).detach(), vectors.mask)


def pooled(vectors: States) -> States:
    """Unit vectors of windows of WINDOW neighbouring tokens."""
    extra = -vectors.mask.shape[1] % WINDOW
    texts, _, width = vectors.values.shape
    mask = pad(vectors.mask, (0, extra)).reshape(texts, -1, WINDOW)
    values = pad(vectors.values, (0, 0, 0, extra)).reshape(texts, -1, WINDOW, width) * mask.unsqueeze(-1)
    return States(normalize(values.sum(2), dim=-1), mask.amax(2))
