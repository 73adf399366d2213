"""Hyperparameters of the adapters and of the projector."""

from __future__ import annotations

from dataclasses import dataclass

SEED = 20261121


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of one task's adapter."""

    steps: int
    batch: int = 48
    max_tokens: int = 96  # most passages are shorter; the trained model may read longer texts
    learning_rate: float = 4e-4
    warmup: float = 0.1  # share of the steps
    temperature: float = 0.05
    similarity_weight: float = 20.0  # weight of `losses.similarity_change`
    similarity_pairs: int = 48  # pairs of a batch that are compared with the backbone
    interpolation: float = 1.0  # position of the saved weights between the backbone, 0, and the trained weights, 1
    held_out: int = 400  # pairs of each set that are never trained on
    seed: int = SEED
    threads: int = 1  # the order of float additions depends on it


SETTINGS = {
    # Half-way between backbone and trained weights (Wortsman et al. 2022, arXiv 2109.01903).
    "retrieval": Settings(steps=200, interpolation=0.5, threads=2),
    "text-matching": Settings(steps=800, batch=32, max_tokens=64, learning_rate=1e-3, held_out=1000),
    "code": Settings(steps=280, max_tokens=64, similarity_weight=10.0, similarity_pairs=12),
}


@dataclass(frozen=True)
class ProjectorSettings:
    """Hyperparameters of the multi-vector projector."""

    pairs: int = 2000  # of each task
    principal_texts: int = 100  # of each set, for the principal directions that training starts from
    steps: int = 450
    batch: int = 48
    learning_rate: float = 1e-3
    temperature: float = 0.05
    binary: float = 0.5  # weight of the loss on binary documents
    pooled: float = 0.5  # weight of the loss on pooled binary documents
    seed: int = SEED
    threads: int = 1


PROJECTOR = ProjectorSettings()
