"""Hyperparameters of the cross-encoder."""

from __future__ import annotations

from dataclasses import dataclass

from training.default_model.settings import SEED

RANK = 16
ALPHA = 32
TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
FUSION_WEIGHTS = (0.01, 0.02, 0.04, 0.08)  # of the reranker's score next to the cosine, in reports


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of one training run; no group is seen twice."""

    steps: int = 330
    groups: int = 8  # of a step
    max_tokens: int = 96  # of a pair; the trained model may read longer ones
    learning_rate: float = 1e-3
    warmup: float = 0.05  # share of the steps
    teacher_weight: float = 1.0  # of the divergence from the teacher's ranking, next to the label's cross-entropy
    teacher_temperature: float = 0.05
    held_out_queries: int = 100  # of each set, in reports
    held_out_documents: int = 20  # reranked for each of them
    checkpoint_steps: int = 100
    seed: int = SEED


SETTINGS = Settings()
