"""Hyperparameters of the cross-encoder."""

from __future__ import annotations

from dataclasses import dataclass

from training.default_model.settings import SEED
from training.hard_negatives.sources import Source

SOURCES = (
    Source("nl2bash-train", "nl2bash-train", 1000),
    Source("debian-desc-en", "debian-desc-en", 1000),
    Source("debian-sentences", "debian-desc-en", 500, sentences=True),
    Source("debian-questions", "debian-desc-en", 800, questions=True, skip=1000),
    Source("debian-joined", "debian-desc-en", 600, joined=3, skip=2600),
    Source("python-docstring-code", "python-docstring-code", 1600, web=0.7),
    Source("java-cs-train", "java-cs-train", 80),
)

RANK = 16
ALPHA = 32
TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
FUSION_WEIGHTS = (0.01, 0.02, 0.04, 0.08)  # of the reranker's score next to the cosine, in reports


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of one training run."""

    groups: int = 8  # of a step
    max_tokens: int = 256  # of a pair
    learning_rate: float = 1e-3  # of the LoRA, the classifier and the token head
    pooler_learning_rate: float = 1e-3
    warmup: float = 0.05  # share of the steps
    teacher_temperature: float = 0.05
    label_bonus: float = 2.0  # that the right document's score is raised by
    margin_weight: float = 0.1  # of the error of differences, next to the divergence
    token_weight: float = 1.0  # of the token head's error
    held_out_queries: int = 40  # of each set, in reports
    held_out_documents: int = 20  # reranked for each of them
    checkpoint_steps: int = 25
    seed: int = SEED


SETTINGS = Settings()
