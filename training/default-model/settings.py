"""Every number of the adapters' training."""

from __future__ import annotations

from dataclasses import dataclass

SEED = 20261121


@dataclass(frozen=True)
class Settings:
    """The numbers of one task."""

    steps: int
    batch: int = 48
    max_tokens: int = 96  # most passages are shorter; the search itself may read longer texts
    learning_rate: float = 4e-4
    warmup: float = 0.1  # share of the steps
    temperature: float = 0.05
    closeness: float = 20.0  # weight of staying near the backbone's own similarities
    anchors: int = 48  # pairs of a batch that are compared with the backbone
    kept: float = 1.0  # how far from the backbone to the trained weights the adapter goes
    held_out: int = 400  # pairs of each set that are never trained on
    seed: int = SEED
    threads: int = 1  # the order of float additions depends on it


SETTINGS = {
    # Half-way it keeps most of what it learned and most of what it knew (Wortsman et al. 2022, arXiv 2109.01903).
    "retrieval": Settings(steps=200, kept=0.5, threads=2),
    "text-matching": Settings(steps=800, batch=32, max_tokens=64, learning_rate=1e-3, held_out=1000),
    "code": Settings(steps=280, max_tokens=64, closeness=10.0, anchors=12),
}


@dataclass(frozen=True)
class Projecting:
    """The numbers of the multi-vector stage."""

    pairs: int = 2000  # of each task
    principal_texts: int = 100  # of each set, for the start
    steps: int = 450
    batch: int = 48
    learning_rate: float = 1e-3
    temperature: float = 0.05
    binary: float = 0.5  # weight of documents of one bit a dimension
    pooled: float = 0.5  # weight of pooled documents of one bit a dimension
    seed: int = SEED
    threads: int = 1


PROJECTING = Projecting()
